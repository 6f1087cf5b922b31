//! The command as a person or a program uses it: the real binary, its output and its exit codes.

mod bench;
mod bench_results;
mod bench_run;
mod beside;
mod bridge;
mod channels;
mod clock;
mod configuration;
mod demo;
mod doctor;
mod enrolled;
mod fleet;
mod full_disk;
mod help;
mod keys;
mod markers;
mod nats;
mod node;
mod operator;
mod problems;
mod process;
mod recovery_small;
mod servers;
mod tokens;
mod trust;
mod vault;
