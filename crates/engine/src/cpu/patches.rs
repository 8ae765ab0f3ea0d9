//! Patches of a feature map as the rows of a matrix that is never held: products pack them block by block.

use super::gemm::{Scalar, Scratch, Turn, interleave};
use crate::map::Map;

/// For every position of a grid, the channels of the positions of a map that lie at fixed offsets from it, its taps;
/// zeros outside the map. One row a position, one column a tap (row by row of taps) and channel.
pub(crate) struct Patches<'a, T> {
    /// `[map positions, columns]`, of which `channels` from `first_channel` on are read.
    pub(super) source: &'a [T],
    pub(super) map: Map,
    pub(super) columns: usize,
    pub(super) first_channel: usize,
    pub(super) channels: usize,
    /// Height and width of the grid in each image.
    pub(super) grid: (usize, usize),
    /// Positions of the map from one position of the grid to the next.
    pub(super) step: usize,
    /// Vertical and horizontal offsets of the taps.
    pub(super) taps: (Vec<isize>, Vec<isize>),
}

/// The position of a map that a patch's offsets count from.
#[derive(Clone, Copy)]
struct Corner {
    image: usize,
    y: isize,
    x: isize,
}

impl<T> Patches<'_, T> {
    /// Rows of the matrix.
    pub(crate) fn positions(&self) -> usize {
        self.map.images * self.grid.0 * self.grid.1
    }

    /// Columns of the matrix.
    pub(crate) fn columns(&self) -> usize {
        self.taps.0.len() * self.taps.1.len() * self.channels
    }

    /// Taps of a row whose channels follow each other in memory: all, or one.
    fn neighbours(&self) -> usize {
        let adjacent = self.taps.1.windows(2).all(|pair| pair[1] == pair[0] + 1);
        if adjacent && self.channels == self.columns { self.taps.1.len() } else { 1 }
    }

    fn corner(&self, position: usize) -> Corner {
        let (rest, x) = (position / self.grid.1, position % self.grid.1);
        let (image, y) = (rest / self.grid.0, rest % self.grid.0);
        Corner { image, y: (y * self.step) as isize, x: (x * self.step) as isize }
    }

    /// Where the channels of `width` neighbouring taps begin in the source, if all of them lie in the map.
    #[inline(always)]
    fn start(&self, corner: Corner, tap: usize, width: usize) -> Option<usize> {
        let (dy, dx) = (self.taps.0[tap / self.taps.1.len()], self.taps.1[tap % self.taps.1.len()]);
        let (y, x) = (corner.y + dy, corner.x + dx);
        let inside = y >= 0 && y < self.map.height as isize && x >= 0 && x + width as isize <= self.map.width as isize;
        inside.then(|| {
            let position = (corner.image * self.map.height + y as usize) * self.map.width + x as usize;
            position * self.columns + self.first_channel
        })
    }
}

impl<T: Scalar> Patches<'_, T> {
    /// Columns `from..from + buffer.len()` of a patch: a piece of the source, or put together in `buffer`.
    #[inline(always)]
    fn line<'b>(&'b self, corner: Corner, neighbours: usize, from: usize, buffer: &'b mut [T]) -> &'b [T] {
        let (run, len) = (neighbours * self.channels, buffer.len());
        if from / run == (from + len - 1) / run
            && let Some(start) = self.start(corner, from / run * neighbours, neighbours)
        {
            return &self.source[start + from % run..][..len];
        }
        let mut done = 0;
        while done < len {
            let (first, offset) = ((from + done) / run * neighbours, (from + done) % run);
            let width = (run - offset).min(len - done);
            let piece = &mut buffer[done..done + width];
            match self.start(corner, first, neighbours) {
                Some(start) => piece.copy_from_slice(&self.source[start + offset..][..width]),
                None => self.edge(corner, first, offset, piece),
            }
            done += width;
        }
        buffer
    }

    /// What a run of neighbouring taps from `first` on sees at the edge of the map, from element `offset` of the run on.
    #[inline(never)]
    fn edge(&self, corner: Corner, first: usize, offset: usize, buffer: &mut [T]) {
        let mut done = 0;
        while done < buffer.len() {
            let (tap, offset) = (first + (offset + done) / self.channels, (offset + done) % self.channels);
            let width = (self.channels - offset).min(buffer.len() - done);
            let piece = &mut buffer[done..done + width];
            match self.start(corner, tap, 1) {
                Some(start) => piece.copy_from_slice(&self.source[start + offset..][..width]),
                None => piece.fill(T::default()),
            }
            done += width;
        }
    }

    /// Panels of `WIDTH` positions from `from` to `to`, columns `first..first + inner` of their patches; positions that
    /// the last panel lacks are zero.
    #[inline(always)]
    pub(super) fn pack_positions<const WIDTH: usize>(
        &self,
        from: usize,
        to: usize,
        first: usize,
        inner: usize,
        panels: &mut [T],
        turn: impl Turn<T>,
    ) {
        let neighbours = self.neighbours();
        let run = neighbours * self.channels;
        let mut buffers = Scratch::stale(WIDTH * run.min(inner).max(1));
        for (panel, to_panel) in panels.chunks_exact_mut(WIDTH * inner).enumerate() {
            let position = from + panel * WIDTH;
            let corners: [Corner; WIDTH] = std::array::from_fn(|i| self.corner((position + i).min(to - 1)));
            let (rows, _) = to_panel.as_chunks_mut::<WIDTH>();
            let mut done = 0;
            while done < inner {
                let len = (run - (first + done) % run).min(inner - done);
                let mut buffers = buffers.as_mut_slice().chunks_exact_mut(len);
                let lines = corners
                    .map(|corner| self.line(corner, neighbours, first + done, buffers.next().unwrap_or_default()));
                interleave(lines, &mut rows[done..done + len], turn);
                done += len;
            }
            if position + WIDTH > to {
                rows.iter_mut().for_each(|row| row[to - position..].fill(T::default()));
            }
        }
    }

    /// Panels of `WIDTH` columns from `from` to `to`, positions `first..first + inner`; columns that the last panel lacks
    /// are zero.
    #[inline(always)]
    pub(super) fn pack_taps<const WIDTH: usize>(
        &self,
        from: usize,
        to: usize,
        first: usize,
        inner: usize,
        panels: &mut [T],
    ) {
        let whole = (to - from) / WIDTH;
        panels[whole * WIDTH * inner..].fill(T::default());
        let neighbours = self.neighbours();
        let mut buffer = Scratch::stale(to - from);
        for row in 0..inner {
            let line = self.line(self.corner(first + row), neighbours, from, buffer.as_mut_slice());
            let (pieces, rest) = line.as_chunks::<WIDTH>();
            for (panel, piece) in pieces.iter().enumerate() {
                panels[(panel * inner + row) * WIDTH..][..WIDTH].copy_from_slice(piece);
            }
            panels.get_mut((whole * inner + row) * WIDTH..).unwrap_or_default()[..rest.len()].copy_from_slice(rest);
        }
    }
}
