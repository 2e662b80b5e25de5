mod again;
mod bad_input;
mod parity;
mod records;
mod stores;
mod support;
