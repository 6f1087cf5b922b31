-- The API's role: it owns its schema, and nothing else. Run as a superuser in that database, with -v api_password=...
\set ON_ERROR_STOP on

CREATE ROLE skytale_api LOGIN PASSWORD :'api_password' CONNECTION LIMIT 64;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA skytale AUTHORIZATION skytale_api;
ALTER ROLE skytale_api SET search_path = skytale;
ALTER ROLE skytale_api SET statement_timeout = '10s';
ALTER ROLE skytale_api SET lock_timeout = '5s';
ALTER ROLE skytale_api SET idle_in_transaction_session_timeout = '30s';
