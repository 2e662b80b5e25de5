//! The async runtime of the process.

use std::io;
use std::time::Duration;

/// Longest wait for blocking threads to end after the future has.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs a future to its end on a runtime of its own, with one thread for each core.
///
/// # Errors
/// The system gives no threads.
pub fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(future);
    // After a stop signal, blocking threads can still be running.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    Ok(result)
}
