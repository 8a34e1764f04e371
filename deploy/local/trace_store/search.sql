-- The answers of Tempo's search: traces active in a time, with a duration between two, with all
-- tags asked for (as parts of their values, in any case), and with spans that meet a condition.
-- As in Tempo a span shows what the query compares, and nothing else.
SELECT json_patch(
  json_object(
    'traceID', ltrim(lower(hex(id)), '0'),
    'rootServiceName', ifnull(root_service, '<root span not yet received>'),
    'rootTraceName', ifnull(root_name, ''),
    'startTimeUnixNano', CAST(first AS TEXT),
    'durationMs', (last - first) / 1000000
  ),
  iif(:is_query, json_object('spanSet', json(span_set), 'spanSets', json_array(json(span_set))), '{}')
) AS answer
FROM (
  SELECT *, (
    SELECT json_object('spans', json_group_array(json(answer)), 'matched', max(matched))
    FROM (
      SELECT count(*) OVER () AS matched, json_patch('{}', json_object(
        'spanID', lower(hex(id)),
        'name', iif('name' IN (SELECT value FROM json_each(:fields)), name, NULL),
        'startTimeUnixNano', CAST(first AS TEXT),
        'durationNanos', CAST(duration AS TEXT),
        'attributes', (
          SELECT json_group_array(json_object('key', key, 'value', CASE type
            WHEN 'true' THEN json('{"boolValue": true}')
            WHEN 'false' THEN json('{"boolValue": false}')
            WHEN 'integer' THEN json_object('intValue', CAST(value AS TEXT))
            WHEN 'real' THEN json_object('doubleValue', value)
            ELSE json_object('stringValue', value)
          END))
          FROM json_each(json_patch(all_attributes, json_object('status', status, 'kind', kind)))
          WHERE key IN (SELECT value FROM json_each(:fields))
        )
      )) AS answer
      FROM searched_span WHERE trace = found.id AND ({condition})
      ORDER BY first LIMIT :spans
    )
  ) AS span_set
  FROM (
    SELECT * FROM trace
    WHERE last >= :start AND first <= :end AND last - first BETWEEN :shortest AND :longest
      AND NOT EXISTS (
        SELECT 1 FROM json_each(:tags) AS wanted WHERE NOT EXISTS (
          SELECT 1 FROM tag
          WHERE trace = trace.id AND key = wanted.key
            AND instr(lower(tag.value), lower(wanted.value))
        )
      )
      AND EXISTS (SELECT 1 FROM searched_span WHERE trace = trace.id AND ({condition}))
    ORDER BY first DESC
    LIMIT :traces
  ) AS found
)
