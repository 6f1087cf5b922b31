-- Where agents reach a relay node over HTTPS, where their network lets no UDP through.
ALTER TABLE relays ADD COLUMN https_url TEXT;
ALTER TABLE fleet_relays ADD COLUMN https_url TEXT;
