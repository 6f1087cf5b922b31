//! `docs/error-codes.md` is the table of codes.

use skytale_proto::Code;
use std::fmt::Write as _;
use std::path::Path;

const GROUPS: [(u32, &str); 7] = [
    (1, "The log"),
    (2, "A session with a relay node"),
    (3, "Tokens"),
    (4, "The API"),
    (5, "The SDK"),
    (6, "The command"),
    (7, "The bridge"),
];

fn page() -> String {
    let mut page = String::from(
        "# Error codes\n\nEvery refusal carries one of these codes, a sentence of what was wrong, and whether the same \
         request may succeed\nlater. A code is never given another meaning.\n",
    );
    for (thousand, title) in GROUPS {
        let codes = Code::ALL.iter().filter(|code| code.number() / 1_000 == thousand);
        write!(
            page,
            "\n## {title}\n\n| code | name | again later? | what to do |\n|---|---|---|---|\n"
        )
        .expect("a string");
        for code in codes {
            let again = if code.is_retryable() { "yes" } else { "no" };
            writeln!(page, "| {code} | {} | {again} | {} |", code.name(), code.help()).expect("a string");
        }
    }
    page
}

#[test]
fn the_page_of_error_codes_is_the_table_of_codes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/error-codes.md");
    if std::env::var_os("SKYTALE_UPDATE_DOCS").is_some() {
        std::fs::write(&path, page()).expect("the page is written");
    }
    let written = std::fs::read_to_string(&path).expect("the page is there");
    assert!(
        written == page(),
        "docs/error-codes.md is out of date: run SKYTALE_UPDATE_DOCS=1 cargo test -p skytale-proto --test it"
    );
}
