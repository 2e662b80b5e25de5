//! What several tests need.

pub mod minio;
pub mod s3;
