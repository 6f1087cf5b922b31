-- Which process of a relay node it is that sends its heartbeats, and another one that shows the same key.
ALTER TABLE fleet_relays ADD COLUMN instance TEXT;
-- One whose place was taken by another under the same addresses: a restart, unless it is heard again.
ALTER TABLE fleet_relays ADD COLUMN displaced TEXT;
ALTER TABLE fleet_relays ADD COLUMN twin TEXT;
-- A JSON list.
ALTER TABLE fleet_relays ADD COLUMN twin_addresses TEXT;
ALTER TABLE fleet_relays ADD COLUMN twin_seen_s BIGINT;
