//! What the asynchronous tests share: both kinds of runtime, and futures that are given up.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use fdpost::{AsyncChannel, Limits, Profile};
use tokio::runtime::{Builder, Runtime};

/// A test that waits so long has failed: nothing here takes seconds by itself.
const PATIENCE: Duration = Duration::from_secs(120);

/// A runtime of one thread, and one of several.
pub fn runtimes() -> [Runtime; 2] {
    let one = Builder::new_current_thread().enable_all().build().unwrap();
    let many = Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    [one, many]
}

/// Runs a test on each kind of runtime, which is gone afterwards.
#[track_caller]
pub fn on_both<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for runtime in runtimes() {
        runtime.block_on(in_time(test()));
    }
}

/// The future's result; panics if it hangs.
pub async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it hangs")
}

/// Two channels that are each other's peer.
pub fn ends<P: Profile>(limits: Limits) -> (AsyncChannel<P>, AsyncChannel<P>) {
    let (ours, theirs) = AsyncChannel::<P>::pair(limits).unwrap();
    (ours, AsyncChannel::from_fd(theirs, limits).unwrap())
}

/// One poll, with the waker of the task.
pub async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Polls the future at most so many times and gives it up then. Between two polls something else
/// happens, and the reactor has its say.
pub async fn polls<F: Future>(most: u32, future: F, mut between: impl FnMut()) -> Option<F::Output> {
    let mut future = pin!(future);
    for left in (0..most).rev() {
        if let Poll::Ready(output) = poll_once(future.as_mut()).await {
            return Some(output);
        }
        if left > 0 {
            between();
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        }
    }
    None
}

/// Lets every other task, and the reactor, have some turns.
pub async fn others() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}
