//! Integration tests, in one binary.

#[cfg(test)]
mod suite {
    mod synthetic;
}
