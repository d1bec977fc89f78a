//! Waiting for a condition with a deadline: no test sleeps for a fixed time.

use std::time::{Duration, Instant};

/// Asks `condition` until it gives a value; panics with `what` after `limit`.
pub async fn until<T, F>(what: &str, limit: Duration, mut condition: F) -> T
where
    F: AsyncFnMut() -> Option<T>,
{
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
