//! Integration tests, in one binary.

#[cfg(test)]
mod suite {
    mod support;

    mod architecture;
    mod bad_grid;
    mod bad_input;
    mod bad_locations;
    mod campaign;
    mod catalogue;
    mod cf;
    mod cli;
    mod command_line;
    mod completions;
    mod config;
    mod conversion;
    mod damaged_headers;
    mod declared;
    mod exit_codes;
    mod file_systems;
    mod import_circles;
    mod killed;
    mod left_out;
    mod network;
    mod parity;
    mod pipes;
    mod progress;
    mod publish;
    mod resume;
    mod setup_environment;
    mod snapshots;
    mod storage;
    mod synthetic;
    mod vis;
    mod whole_answers;
}
