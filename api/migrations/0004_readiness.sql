-- Written by each process again and again: whether the database takes writes.
INSERT INTO counters (name, value) VALUES ('readiness', 0);
