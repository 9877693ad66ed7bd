// Follows each of the streams named as arguments with an EventSource, which reconnects by itself and says where it was;
// a JSON line for each message: which of them, the message, its id.
import { EventSource } from "eventsource";

process.argv.slice(2).forEach((url, reader) => {
  const source = new EventSource(url);
  source.addEventListener("message", (event) => {
    console.log(JSON.stringify({ reader, message: JSON.parse(event.data), cursor: event.lastEventId }));
  });
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) console.log(JSON.stringify({ reader, failed: "closed for good" }));
  });
});
