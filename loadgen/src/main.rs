//! The load generator as a program of its own.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let code = volley_loadgen::cli_main(std::env::args_os().collect());
    std::process::exit(code);
}
