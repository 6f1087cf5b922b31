//! The command as a person or a program uses it: the real binary, its output and its exit codes.

mod configuration;
mod help;
mod process;
