#![no_main]
#[expect(dead_code, reason = "each target runs one case")]
#[path = "../cases.rs"]
mod cases;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cases::imdn_document(bytes));
