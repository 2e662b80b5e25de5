mod again;
mod bad_input;
mod cf;
mod parity;
mod records;
mod stores;
pub mod support;
