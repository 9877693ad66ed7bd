-- The store on SQLite, version 3. Keys of mailboxes carry their kind first: u(ser), g(roup), s(ent).

CREATE TABLE history(
  one        INTEGER PRIMARY KEY CHECK (one = 1),
  generation INTEGER NOT NULL,           -- random, kept by export and import, changed by restore
  closed     TEXT,                       -- the export after which nothing is written, NULL while writes are taken
  imported   TEXT,                       -- the export that this store was made from, if it was
  feeds      INTEGER NOT NULL DEFAULT 0  -- 1: it was on many nodes, and cursors that any feed minted belong to it
);

-- Updated once a commit: the last position and timestamp given out. News up to `forgotten` was trimmed; of messages up
-- to `placed`, `places` has the rows.
CREATE TABLE clock(
  one       INTEGER PRIMARY KEY CHECK (one = 1),
  position  INTEGER NOT NULL,
  timestamp INTEGER NOT NULL,
  forgotten INTEGER NOT NULL,
  placed    INTEGER NOT NULL
);

-- One row a server start. A cursor names the run it was minted in; a copy put back by hand lacks the later ones.
CREATE TABLE run(
  number INTEGER PRIMARY KEY,
  id     INTEGER NOT NULL UNIQUE,        -- random
  first  INTEGER NOT NULL                -- the first position it could give out
);

CREATE TABLE users(
  id   TEXT PRIMARY KEY,
  name TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE groups(
  id      TEXT PRIMARY KEY,
  name    TEXT NOT NULL,
  members INTEGER NOT NULL               -- counted here, since counting 100,000 rows at each joining would not do
) WITHOUT ROWID;

CREATE TABLE memberships(
  user_id    TEXT NOT NULL,
  group_id   TEXT NOT NULL,
  key        INTEGER NOT NULL,           -- 64 random bits, minted at joining, unique within the user
  joined_seq INTEGER NOT NULL,           -- the group's head at joining
  PRIMARY KEY (user_id, group_id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX memberships_by_key ON memberships(user_id, key);
CREATE UNIQUE INDEX memberships_by_group ON memberships(group_id, user_id);

CREATE TABLE blocks(
  user_id  TEXT NOT NULL,
  other_id TEXT NOT NULL,
  PRIMARY KEY (user_id, other_id)
) WITHOUT ROWID;

-- The log: one row a message, in commit order; the rowid is its position in the feed.
CREATE TABLE messages(
  position  INTEGER PRIMARY KEY,
  mailbox   TEXT NOT NULL,
  seq       INTEGER NOT NULL,
  sender    TEXT NOT NULL,
  sent_seq  INTEGER,                     -- its place among the sender's copies, if one is kept
  timestamp INTEGER NOT NULL,
  id        TEXT NOT NULL,
  text      TEXT NOT NULL
);

-- Where a message is found in its mailbox, and among its sender's copies. These rows lie far apart, and a commit writes
-- whole pages: so they are made for some hundreds of messages at once, and until then the log's end is looked through.
CREATE TABLE places(
  mailbox  TEXT NOT NULL,
  seq      INTEGER NOT NULL,
  position INTEGER NOT NULL,
  PRIMARY KEY (mailbox, seq)
) WITHOUT ROWID;

-- The news of the directory, numbered along with the messages: whose entry is no longer what it was.
CREATE TABLE alterations(
  position  INTEGER PRIMARY KEY,
  timestamp INTEGER NOT NULL,
  user_id   TEXT NOT NULL
);

-- A mailbox's head outlives its messages: up to `seq` they were given out once and are kept no more.
CREATE TABLE trimmed(
  mailbox   TEXT PRIMARY KEY,
  seq       INTEGER NOT NULL,
  timestamp INTEGER NOT NULL
) WITHOUT ROWID;

-- What was answered to an idempotency key; the number grows with time, so that the oldest are found first.
CREATE TABLE keys(
  number    INTEGER PRIMARY KEY,
  name      BLOB NOT NULL UNIQUE,        -- a digest of scope and key
  content   BLOB NOT NULL,               -- a digest of the operation and its fields
  timestamp INTEGER NOT NULL,
  position  INTEGER,                     -- of the message, if it was a send
  answer    TEXT                         -- of anything else, as JSON
);
