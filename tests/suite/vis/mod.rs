//! The commands of `dor vis`.

mod again;
mod bad_input;
mod cf;
mod odd_inputs;
mod parity;
mod records;
mod replaced;
mod stores;
pub mod support;
