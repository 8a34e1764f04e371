-- Spans as they came (protobuf), and beside them what a search compares. Times in nanoseconds.
-- Triggers and views are made anew at every start, so that a file always has those of its program.
PRAGMA journal_mode = WAL;
PRAGMA journal_size_limit = 8388608; -- what the log shrinks to after a large export

-- A resource or a scope, stored once however many spans share it.
CREATE TABLE IF NOT EXISTS origin (
  id INTEGER PRIMARY KEY,
  data BLOB UNIQUE,
  attributes TEXT
);

CREATE TABLE IF NOT EXISTS record (
  trace BLOB,
  id BLOB,
  parent BLOB,
  name TEXT,
  kind INTEGER,
  status INTEGER,
  first INTEGER,
  last INTEGER,
  attributes TEXT,
  resource INTEGER,
  scope INTEGER,
  data BLOB,
  PRIMARY KEY (trace, id, kind),
  CONSTRAINT "a trace id has 16 bytes, not all zero"
    CHECK (length(trace) = 16 AND trace != zeroblob(16)),
  CONSTRAINT "a span id has 8 bytes, not all zero"
    CHECK (length(id) = 8 AND id != zeroblob(8))
);
CREATE INDEX IF NOT EXISTS record_resource ON record (resource);
CREATE INDEX IF NOT EXISTS record_scope ON record (scope);

-- `written` counts up with every span stored: the smallest is the trace unchanged the longest.
CREATE TABLE IF NOT EXISTS trace (
  id BLOB PRIMARY KEY,
  first INTEGER,
  last INTEGER,
  written INTEGER,
  root_first INTEGER,
  root_name TEXT,
  root_service TEXT
);
CREATE INDEX IF NOT EXISTS trace_first ON trace (first);
CREATE INDEX IF NOT EXISTS trace_written ON trace (written);

DROP TRIGGER IF EXISTS record_stored;
CREATE TRIGGER record_stored AFTER INSERT ON record BEGIN
  INSERT INTO trace (id, first, last, written)
    VALUES (new.trace, new.first, new.last, (SELECT ifnull(max(written), 0) + 1 FROM trace))
    ON CONFLICT (id) DO UPDATE SET
      first = min(first, excluded.first),
      last = max(last, excluded.last),
      written = excluded.written;
  UPDATE trace SET
      root_first = new.first,
      root_name = new.name,
      root_service = (
        SELECT ifnull(json_extract(attributes, '$."service.name"'), '')
        FROM origin WHERE id = new.resource
      )
    WHERE id = new.trace AND new.parent = x'' AND ifnull(new.first < root_first, TRUE);
END;

DROP TRIGGER IF EXISTS trace_forgotten;
CREATE TRIGGER trace_forgotten AFTER DELETE ON trace BEGIN
  DELETE FROM record WHERE trace = old.id;
END;

DROP TRIGGER IF EXISTS record_forgotten;
CREATE TRIGGER record_forgotten AFTER DELETE ON record BEGIN
  DELETE FROM origin WHERE id = old.resource
    AND NOT EXISTS (SELECT 1 FROM record WHERE resource = old.resource);
  DELETE FROM origin WHERE id = old.scope
    AND NOT EXISTS (SELECT 1 FROM record WHERE scope = old.scope);
END;

DROP VIEW IF EXISTS oldest;
CREATE VIEW oldest AS SELECT id FROM trace ORDER BY written LIMIT 1;

DROP VIEW IF EXISTS used;
CREATE VIEW used AS
  SELECT (page_count - freelist_count) * page_size AS bytes
  FROM pragma_page_count, pragma_freelist_count, pragma_page_size;

-- Spans as they came, those of one origin together.
DROP VIEW IF EXISTS stored_span;
CREATE VIEW stored_span AS
  SELECT record.trace, resource.data AS resource, scope.data AS scope, record.data
  FROM record
  JOIN origin AS resource ON resource.id = record.resource
  JOIN origin AS scope ON scope.id = record.scope
  ORDER BY record.resource, record.scope, record.first;

-- What a search compares: attributes and, under TraceQL's names, what isn't one.
DROP VIEW IF EXISTS span;
CREATE VIEW span AS
  SELECT
    record.trace, record.id, record.parent, record.first, record.name,
    max(0, record.last - record.first) AS duration,
    CASE record.status WHEN 1 THEN 'ok' WHEN 2 THEN 'error' ELSE 'unset' END AS status,
    CASE record.kind
      WHEN 1 THEN 'internal' WHEN 2 THEN 'server' WHEN 3 THEN 'client'
      WHEN 4 THEN 'producer' WHEN 5 THEN 'consumer' ELSE 'unspecified'
    END AS kind,
    record.attributes, resource.attributes AS resource_attributes,
    json_patch(resource.attributes, record.attributes) AS all_attributes,
    ifnull(json_extract(resource.attributes, '$."service.name"'), '') AS service,
    trace.root_name, trace.root_service, record.data
  FROM record
  JOIN trace ON trace.id = record.trace
  JOIN origin AS resource ON resource.id = record.resource;

DROP VIEW IF EXISTS searched_span;
CREATE VIEW searched_span AS
  SELECT *, json_object(
    'name', name, 'status', status, 'kind', kind, 'duration', duration,
    'rootName', root_name, 'rootServiceName', root_service, 'trace:id', lower(hex(trace))
  ) AS intrinsics
  FROM span;

-- The tags of a trace, as the search by tags sees them.
DROP VIEW IF EXISTS tag;
CREATE VIEW tag AS
  SELECT trace, key, iif(type IN ('true', 'false'), type, atom) AS value
  FROM span, json_each(json_patch(all_attributes, json_object(
    'name', name, 'status.code', status, 'root.name', root_name, 'root.service.name', root_service
  )));

DROP VIEW IF EXISTS trace_line; -- of earlier versions
