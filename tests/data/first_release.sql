-- The ledger as the first release, 0.1.0, leaves it; never to be changed.

CREATE TABLE usage_limits_counters ( id TEXT NOT NULL, scope TEXT NOT NULL, model_glob TEXT NOT NULL, window_start BIGINT NOT NULL, window_end BIGINT NOT NULL, requests BIGINT NOT NULL, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL, cost_micros BIGINT NOT NULL, PRIMARY KEY (id) );
CREATE INDEX usage_limits_counters_scope ON usage_limits_counters (scope, window_end);
CREATE TABLE usage_limits_grants ( id TEXT NOT NULL, scope TEXT NOT NULL, measure TEXT NOT NULL, model_glob TEXT NOT NULL, period TEXT NOT NULL, amount BIGINT NOT NULL, kind TEXT NOT NULL, granted_by TEXT NOT NULL, reason TEXT NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, PRIMARY KEY (id) );
CREATE INDEX usage_limits_grants_scope ON usage_limits_grants (scope, expires_at);
CREATE TABLE usage_limits_migrations ( number INTEGER NOT NULL, applied_at BIGINT NOT NULL, PRIMARY KEY (number) );
CREATE TABLE usage_limits_notices ( id TEXT NOT NULL, expires_at BIGINT NOT NULL, PRIMARY KEY (id) );
CREATE TABLE usage_limits_records ( id TEXT NOT NULL, user_id TEXT NOT NULL, user_email TEXT NOT NULL, group_ids TEXT NOT NULL, model_id TEXT NOT NULL, model_names TEXT NOT NULL, source TEXT NOT NULL, chat_id TEXT NOT NULL, message_id TEXT NOT NULL, policy TEXT NOT NULL, state TEXT NOT NULL, created_at BIGINT NOT NULL, settled_at BIGINT, lease_until BIGINT NOT NULL, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL, cached_input_tokens BIGINT NOT NULL, cost_micros BIGINT NOT NULL, estimated BOOLEAN NOT NULL, counted INTEGER NOT NULL, weighted_input_tokens BIGINT NOT NULL, weighted_output_tokens BIGINT NOT NULL, PRIMARY KEY (id) );
CREATE INDEX usage_limits_records_created ON usage_limits_records (created_at);
CREATE INDEX usage_limits_records_open ON usage_limits_records (user_id, state) WHERE state = 'reserved';
CREATE INDEX usage_limits_records_user ON usage_limits_records (user_id, created_at);

INSERT INTO usage_limits_counters (id, scope, model_glob, window_start, window_end, requests, input_tokens, output_tokens, cost_micros)
  VALUES ('everyone * 1773014400-1773619200', 'everyone', '*', 1773014400, 1773619200, 2, 97, 65, 1500000);
INSERT INTO usage_limits_counters (id, scope, model_glob, window_start, window_end, requests, input_tokens, output_tokens, cost_micros)
  VALUES ('user:ann * 1772323200-1775001600', 'user:ann', '*', 1772323200, 1775001600, 1, 90, 60, 1500000);
INSERT INTO usage_limits_counters (id, scope, model_glob, window_start, window_end, requests, input_tokens, output_tokens, cost_micros)
  VALUES ('user:ann * 1773100800-1773187200', 'user:ann', '*', 1773100800, 1773187200, 1, 90, 60, 1500000);
INSERT INTO usage_limits_counters (id, scope, model_glob, window_start, window_end, requests, input_tokens, output_tokens, cost_micros)
  VALUES ('user:ann * rolling 18000', 'user:ann', '*', 1773126061, 9007199254740992, 1, 90, 60, 1500000);
INSERT INTO usage_limits_counters (id, scope, model_glob, window_start, window_end, requests, input_tokens, output_tokens, cost_micros)
  VALUES ('user:ann gpt-4* 1772323200-1775001600', 'user:ann', 'gpt-4*', 1772323200, 1775001600, 1, 90, 60, 1500000);
INSERT INTO usage_limits_counters (id, scope, model_glob, window_start, window_end, requests, input_tokens, output_tokens, cost_micros)
  VALUES ('user:bob * 1773100800-1773187200', 'user:bob', '*', 1773100800, 1773187200, 1, 7, 5, 0);
INSERT INTO usage_limits_grants (id, scope, measure, model_glob, period, amount, kind, granted_by, reason, created_at, expires_at)
  VALUES ('first-grant', 'user:ann', 'tokens', '*', 'day', 250, 'grant', 'admin@example.org', 'a deadline', 1773144000, 1773187200);
INSERT INTO usage_limits_migrations (number, applied_at)
  VALUES (1, 1773144000);
INSERT INTO usage_limits_notices (id, expires_at)
  VALUES ('user ann user:ann 1k tokens/day warn 10% at 10%', 1773187200);
INSERT INTO usage_limits_records (id, user_id, user_email, group_ids, model_id, model_names, source, chat_id, message_id, policy, state, created_at, settled_at, lease_until, input_tokens, output_tokens, cached_input_tokens, cost_micros, estimated, counted, weighted_input_tokens, weighted_output_tokens)
  VALUES ('first-1', 'ann', 'ann@example.org', '|lab-1|', 'gpt-4o', '|gpt-4o|', 'page', 'chat-1', 'message-1', 'default', 'settled', 1773144000, 1773144000, 1773144300, 90, 60, 0, 1500000, false, 1, 90, 60);
INSERT INTO usage_limits_records (id, user_id, user_email, group_ids, model_id, model_names, source, chat_id, message_id, policy, state, created_at, settled_at, lease_until, input_tokens, output_tokens, cached_input_tokens, cost_micros, estimated, counted, weighted_input_tokens, weighted_output_tokens)
  VALUES ('first-2', 'ann', 'ann@example.org', '|lab-1|', 'gpt-4o', '|gpt-4o|', 'api', '', '', 'default', 'released', 1773144060, 1773144060, 1773144360, 0, 0, 0, 0, false, 0, 0, 0);
INSERT INTO usage_limits_records (id, user_id, user_email, group_ids, model_id, model_names, source, chat_id, message_id, policy, state, created_at, settled_at, lease_until, input_tokens, output_tokens, cached_input_tokens, cost_micros, estimated, counted, weighted_input_tokens, weighted_output_tokens)
  VALUES ('first-3', 'ann', 'ann@example.org', '|lab-1|', 'gpt-4o', '|gpt-4o|', 'temporary', '', '', 'default', 'reserved', 1773144060, NULL, 1773144360, 30, 20, 0, 0, false, 1, 30, 20);
INSERT INTO usage_limits_records (id, user_id, user_email, group_ids, model_id, model_names, source, chat_id, message_id, policy, state, created_at, settled_at, lease_until, input_tokens, output_tokens, cached_input_tokens, cost_micros, estimated, counted, weighted_input_tokens, weighted_output_tokens)
  VALUES ('first-4', 'bob', 'bob@example.org', '|', 'gpt-4o', '|gpt-4o|', 'page', '', '', 'default', 'settled', 1773144060, 1773144060, 1773144360, 7, 5, 0, 0, false, 1, 7, 5);
