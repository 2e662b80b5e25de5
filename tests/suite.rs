//! Integration tests, in one binary.

#[cfg(test)]
mod suite {
    mod support;

    mod storage;
}
