//! The next batches are prepared on another thread while the current one is used.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// Runs an iterator on its own thread, a few items ahead of the consumer; order and items are unchanged.
///
/// An error that the iterator yields arrives as the item it is; a panic in it continues in the consumer. Dropping
/// this stops the thread after the item it is working on.
#[derive(Debug)]
pub struct Prefetch<T> {
    /// `None` once the iterator has ended or this is dropped.
    items: Option<Receiver<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Starts to draw from `iterator`; at most `ahead` items (at least one) wait for the consumer.
    pub fn new(iterator: impl Iterator<Item = T> + Send + 'static, ahead: usize) -> Self {
        let (sender, items) = sync_channel(ahead.max(1));
        let thread = std::thread::spawn(move || {
            for item in iterator {
                if sender.send(item).is_err() {
                    break; // the consumer is gone
                }
            }
        });
        Prefetch { items: Some(items), thread: Some(thread) }
    }
}

impl<T> Iterator for Prefetch<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if let Ok(item) = self.items.as_ref()?.recv() {
            return Some(item);
        }
        self.items = None;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        None
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        self.items = None; // the thread's next send fails, so joining it cannot hang
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic nobody waits for any more
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn all_items_arrive_in_order_and_the_end_stays_the_end() {
        let mut items = Prefetch::new(0..1000, 3);
        assert!(items.by_ref().eq(0..1000));
        assert_eq!((items.next(), items.next()), (None, None));
    }

    #[test]
    fn an_error_arrives_in_its_place() {
        let items: Result<Vec<u32>, String> =
            Prefetch::new([Ok(1), Err("broken".to_owned()), Ok(3)].into_iter(), 1).collect();
        assert_eq!(items, Err("broken".to_owned()));
    }

    #[test]
    fn a_panic_continues_in_the_consumer() {
        let mut items = Prefetch::new((0..3).map(|n| if n == 1 { panic!("row 1") } else { n }), 1);
        assert_eq!(items.next(), Some(0));
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| items.next())).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"row 1"));
    }

    #[test]
    fn an_endless_iterator_stays_a_few_items_ahead_and_stops_when_dropped() {
        let drawn = Arc::new(AtomicUsize::new(0));
        let count = drawn.clone();
        let mut items = Prefetch::new(std::iter::repeat_with(move || count.fetch_add(1, Ordering::SeqCst)), 2);
        for n in 0..10 {
            assert_eq!(items.next(), Some(n));
        }
        drop(items); // returns only because the thread has ended
        // Ten taken, two waiting, one in the hand of the thread, one drawn when the consumer left.
        assert!((10..=14).contains(&drawn.load(Ordering::SeqCst)), "{drawn:?}");
    }
}
