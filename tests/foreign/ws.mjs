// Follows each of the sockets named as arguments; opens it anew from the last cursor whenever it is closed.
// A JSON line for each message: which of them, the message, its cursor.
import WebSocket from "ws";

const AGAIN_MS = 50;

function follow(url, reader, cursor) {
  const at = new URL(url);
  if (cursor !== undefined) at.searchParams.set("cursor", cursor);
  const socket = new WebSocket(at, "tidings.v1");
  socket.on("message", (data, isBinary) => {
    const frame = JSON.parse(data.toString());
    if (isBinary) console.log(JSON.stringify({ reader, failed: "a binary frame" }));
    cursor = frame.cursor ?? cursor;
    if (frame.type === "message") console.log(JSON.stringify({ reader, message: frame.message, cursor }));
  });
  socket.on("unexpected-response", (_, response) => {
    console.log(JSON.stringify({ reader, failed: `answered ${response.statusCode}` }));
  });
  socket.on("error", () => {}); // a cut connection is closed after it
  socket.on("close", () => setTimeout(follow, AGAIN_MS, url, reader, cursor));
}

process.argv.slice(2).forEach((url, reader) => follow(url, reader));
