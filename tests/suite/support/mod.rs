//! What tests share.

pub mod dor;
