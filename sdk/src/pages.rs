//! Pages whose Rust code the documentation tests compile: `ops/docs/blocks` sees that every page with some is here.

#[doc = include_str!("../../README.md")]
struct Readme;
