//! Buffers that are handed back instead of freed: a training step allocates the same sizes again and again, and fresh
//! memory costs a page fault per 4 KB.

use std::collections::BTreeMap;
use std::sync::Mutex;

use memmap2::MmapMut;

/// Below this many elements the allocator is faster than the pool.
const SMALLEST: usize = 4096;

/// From this many elements on, memory comes from the operating system directly: an allocator that has seen large blocks
/// freed keeps them, in pieces that the next, longer batch does not fit.
const SMALLEST_MAPPED: usize = 1 << 16;

/// One part of so many that free buffers may go beyond the peak: fresh pages have to be cleared.
const SLACK: usize = 8;

/// Where the numbers of a buffer lie.
#[derive(Debug)]
enum Memory {
    Heap(Vec<f32>),
    Mapped(MmapMut),
}

impl Memory {
    fn zeros(len: usize) -> Self {
        if len < SMALLEST_MAPPED {
            return Memory::Heap(vec![0.0; len]);
        }
        let Ok(map) = MmapMut::map_anon(len * size_of::<f32>()) else { return Memory::Heap(vec![0.0; len]) };
        // Fewer, larger pages where the system has them; it may refuse, and nothing is lost.
        #[cfg(all(target_os = "linux", not(miri)))]
        let _ = map.advise(memmap2::Advice::HugePage);
        Memory::Mapped(map)
    }

    /// Zeros that take memory, in small pages, where they are written only.
    fn vacant(len: usize) -> Self {
        let Ok(map) = MmapMut::map_anon(len * size_of::<f32>()) else { return Memory::Heap(vec![0.0; len]) };
        #[cfg(all(target_os = "linux", not(miri)))]
        let _ = map.advise(memmap2::Advice::NoHugePage);
        Memory::Mapped(map)
    }

    fn as_slice(&self) -> &[f32] {
        match self {
            Memory::Heap(data) => data,
            Memory::Mapped(map) => bytemuck::cast_slice(map),
        }
    }

    fn as_mut_slice(&mut self) -> &mut [f32] {
        match self {
            Memory::Heap(data) => data,
            Memory::Mapped(map) => bytemuck::cast_slice_mut(map),
        }
    }

    fn len(&self) -> usize {
        self.as_slice().len()
    }
}

static POOL: Mutex<Pool> =
    Mutex::new(Pool { free: BTreeMap::new(), free_elements: 0, live_elements: 0, peak_elements: 0 });

/// Free buffers by length. Free and live ones together exceed the most that was ever live at once by an eighth at most:
/// pooling hardly raises the peak, and passes that need other lengths by turns find most of them free.
struct Pool {
    free: BTreeMap<usize, Vec<Memory>>,
    free_elements: usize,
    live_elements: usize,
    peak_elements: usize,
}

impl Pool {
    /// A free buffer of at least `len` elements and at most a quarter more.
    fn take(&mut self, len: usize) -> Option<Memory> {
        let (&found, _) = self.free.range(len..=len + len / 4).next()?;
        let list = self.free.get_mut(&found)?;
        let buffer = list.pop();
        if list.is_empty() {
            self.free.remove(&found);
        }
        self.free_elements -= found;
        buffer
    }

    fn count_live(&mut self, elements: usize) -> Vec<Memory> {
        self.live_elements += elements;
        self.peak_elements = self.peak_elements.max(self.live_elements);
        let mut evicted = Vec::new();
        while self.live_elements + self.free_elements > self.peak_elements + self.peak_elements / SLACK {
            let Some((&smallest, _)) = self.free.iter().next() else { break };
            if let Some(list) = self.free.get_mut(&smallest) {
                evicted.extend(list.pop());
                if list.is_empty() {
                    self.free.remove(&smallest);
                }
            }
            self.free_elements -= smallest;
        }
        evicted
    }
}

/// A host buffer of `f32` that returns to the pool when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// At least `len` elements: a pooled buffer may be somewhat longer than asked for.
    data: Memory,
    len: usize,
}

impl Buffer {
    /// A buffer of `len` elements whose content is unspecified (old numbers of an earlier owner).
    pub(crate) fn stale(len: usize) -> Self {
        if len < SMALLEST {
            return Buffer { data: Memory::Heap(vec![0.0; len]), len };
        }
        let mut pool = POOL.lock().expect("no code panics while holding the pool");
        if let Some(data) = pool.take(len) {
            pool.live_elements += data.len();
            return Buffer { data, len };
        }
        // A little room, so that the next, slightly longer batch finds it large enough.
        let room = len.next_multiple_of((len / 16).next_power_of_two());
        let evicted = pool.count_live(room);
        drop(pool);
        drop(evicted);
        Buffer { data: Memory::zeros(room), len }
    }

    /// A buffer of zeros, most of which are to stay zeros: they take no memory.
    pub(crate) fn vacant(len: usize) -> Self {
        if len < SMALLEST_MAPPED {
            let mut buffer = Buffer::stale(len);
            buffer.as_mut_slice().fill(0.0);
            return buffer;
        }
        POOL.lock().expect("no code panics while holding the pool").count_live(len);
        Buffer { data: Memory::vacant(len), len }
    }

    pub(crate) fn from_vec(data: Vec<f32>) -> Self {
        let len = data.len();
        if len >= SMALLEST {
            POOL.lock().expect("no code panics while holding the pool").count_live(len);
        }
        Buffer { data: Memory::Heap(data), len }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        &self.data.as_slice()[..self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.data.as_mut_slice()[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let data = std::mem::replace(&mut self.data, Memory::Heap(Vec::new()));
        if data.len() < SMALLEST {
            return;
        }
        if let Ok(mut pool) = POOL.lock() {
            pool.live_elements -= data.len();
            // Came with its numbers from outside, as the next of its kind will: kept, it would lie there unused.
            if matches!(data, Memory::Heap(_)) && data.len() >= SMALLEST_MAPPED {
                return;
            }
            pool.free_elements += data.len();
            pool.free.entry(data.len()).or_default().push(data);
        }
    }
}

/// Gives every free buffer back to the operating system, for moments when the sizes change for good.
pub fn release_free_buffers() {
    if let Ok(mut pool) = POOL.lock() {
        pool.free_elements = 0;
        let freed = std::mem::take(&mut pool.free);
        pool.peak_elements = pool.live_elements;
        drop(pool);
        drop(freed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_serves_the_next_of_similar_length() {
        let length = 1_234_567;
        let first = Buffer::stale(length);
        let address = first.as_slice().as_ptr();
        drop(first);
        let second = Buffer::stale(length - 1000);
        assert_eq!(second.as_slice().as_ptr(), address);
        assert_eq!(second.as_slice().len(), length - 1000);
    }
}
