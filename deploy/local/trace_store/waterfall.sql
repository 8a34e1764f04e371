-- The spans of a trace, each below its parent in order of start, with where its bar begins and how
-- long it is (percent of the trace). Spans whose ancestry is a circle come last.
WITH RECURSIVE
  member AS MATERIALIZED (
    SELECT *,
      min(first) OVER () AS begin,
      max(1, max(first + duration) OVER () - min(first) OVER ()) AS whole,
      -- Ids may be shared by spans of different kinds; one of them has the children.
      row_number() OVER (PARTITION BY id ORDER BY kind) = 1 AS leads
    FROM span WHERE trace = :id
  ),
  tree (id, kind, leads, depth, path) AS (
    SELECT id, kind, leads, 0, printf('%020d', first) || hex(id) FROM member
    WHERE parent = id OR parent NOT IN (SELECT id FROM member)
    UNION ALL
    SELECT member.id, member.kind, member.leads, depth + 1,
      path || printf('%020d', first) || hex(member.id)
    FROM tree JOIN member ON member.parent = tree.id AND member.id != tree.id
    WHERE tree.leads
  )
SELECT member.*, lower(hex(trace)) AS hex_trace, lower(hex(member.id)) AS hex_id,
  ifnull(depth, 0) AS depth,
  100.0 * (first - begin) / whole AS bar_begin,
  100.0 * duration / whole AS bar_length
FROM member LEFT JOIN tree USING (id, kind)
ORDER BY path IS NULL, path, first
