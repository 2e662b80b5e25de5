//! What several tests need.

pub mod dor;
pub mod minio;
pub mod s3;
