//! Blocking work on a local disk.

use std::io;

use tokio::task::spawn_blocking;

use super::error::StoreError;

/// Runs blocking work on a thread of tokio's blocking pool. `url` and `action` describe it in errors.
///
/// # Errors
/// The error of `work`, or [`StoreError::Stopped`] if the runtime shuts down. A panic continues here.
pub(super) async fn blocking<T: Send + 'static>(
    url: &str,
    action: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let result = match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // A task of the blocking pool is cancelled only when the runtime shuts down.
            Err(_) => return Err(StoreError::Stopped),
        },
    };
    result.map_err(|source| StoreError::io(url, action, source))
}
