//! Integration tests, in one binary.

#[cfg(test)]
mod suite {
    mod support;

    mod cli;
    mod config;
    mod conversion;
    mod setup_environment;
    mod storage;
    mod synthetic;
}
