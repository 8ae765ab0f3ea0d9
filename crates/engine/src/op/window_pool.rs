use super::expect_map;
use crate::error::{Error, Result};
use crate::map::{Map, Padding, Span, WindowPooling, Windows};
use crate::tape::{Tape, Var};

/// How a pooling window moves over a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowOptions {
    /// Height and width of the window.
    pub kernel: (usize, usize),
    /// Positions from one window to the next.
    pub stride: usize,
    /// Positions outside the map that a window may reach; a maximum never takes them.
    pub padding: Padding,
    /// A last window that reaches over the end is kept, if it begins inside the map or its padding before it.
    pub ceil: bool,
    /// A mean counts the padding as zeros. Positions that only `ceil` reaches are never counted.
    pub count_padding: bool,
}

impl WindowOptions {
    /// A square window without padding, torch's other defaults.
    pub fn square(kernel: usize, stride: usize) -> Self {
        WindowOptions {
            kernel: (kernel, kernel),
            stride,
            padding: Padding::default(),
            ceil: false,
            count_padding: true,
        }
    }

    /// The windows along one axis; none where one would see nothing but padding.
    fn spans(&self, extent: usize, kernel: usize, before: usize, after: usize) -> Option<Vec<Span>> {
        let room = (extent + before + after).checked_sub(kernel)?;
        let mut count = if self.ceil { room.div_ceil(self.stride) } else { room / self.stride } + 1;
        if self.ceil && (count - 1) * self.stride >= extent + before {
            count -= 1;
        }
        let span = |index: usize| {
            let from = index * self.stride;
            let to = (from + kernel).min(extent + before + after);
            let (start, end) = (from.saturating_sub(before), to.saturating_sub(before).min(extent));
            let extent = if self.count_padding { to - from } else { end.saturating_sub(start) };
            (start < end).then_some(Span { start, end, extent })
        };
        (0..count).map(span).collect()
    }

    fn windows(&self, operation: &'static str, map: Map) -> Result<Windows> {
        let Padding { top, bottom, left, right } = self.padding;
        let found = (self.stride > 0 && self.kernel.0 > 0 && self.kernel.1 > 0).then(|| {
            let rows = self.spans(map.height, self.kernel.0, top, bottom)?;
            Some(Windows { rows, columns: self.spans(map.width, self.kernel.1, left, right)? })
        });
        found.flatten().ok_or_else(|| {
            let expected = format!("windows that each see a part of a map of {} x {}", map.height, map.width);
            Error::shape(operation, expected, format!("{self:?}"))
        })
    }
}

impl Tape<'_> {
    /// The largest value of each window, channel by channel.
    ///
    /// # Shapes
    /// `x [map rows, channels]`; gives `[output rows, channels]` and its map.
    ///
    /// # Errors
    /// [`Error::Shape`] when `x` is not such a map, or a window would see nothing of it.
    ///
    /// # Reference
    /// `torch.nn.functional.max_pool2d`.
    pub fn max_pool2d(&mut self, x: &Var, map: Map, options: WindowOptions) -> Result<(Var, Map)> {
        let windows = options.windows("max_pool2d", map)?;
        self.window_pool("max_pool2d", WindowPooling::Max, x, map, windows)
    }

    /// The mean of each window, channel by channel.
    ///
    /// # Shapes
    /// `x [map rows, channels]`; gives `[output rows, channels]` and its map.
    ///
    /// # Errors
    /// [`Error::Shape`] when `x` is not such a map, or a window would see nothing of it.
    ///
    /// # Reference
    /// `torch.nn.functional.avg_pool2d`.
    pub fn avg_pool2d(&mut self, x: &Var, map: Map, options: WindowOptions) -> Result<(Var, Map)> {
        let windows = options.windows("avg_pool2d", map)?;
        self.window_pool("avg_pool2d", WindowPooling::Mean, x, map, windows)
    }

    /// The mean of each of `height x width` windows that cover the map: window `i` of `n` along an axis of `extent` goes
    /// from `floor(i extent / n)` to `ceil((i + 1) extent / n)`.
    ///
    /// # Shapes
    /// `x [map rows, channels]`; gives `[images height width, channels]` and its map.
    ///
    /// # Errors
    /// [`Error::Shape`] when `x` is not such a map, or one of the extents is 0.
    ///
    /// # Reference
    /// `torch.nn.functional.adaptive_avg_pool2d`.
    pub fn adaptive_avg_pool2d(&mut self, x: &Var, map: Map, height: usize, width: usize) -> Result<(Var, Map)> {
        if [height, width, map.height, map.width].contains(&0) {
            let got = format!("{} x {} to {height} x {width}", map.height, map.width);
            return Err(Error::shape("adaptive_avg_pool2d", "extents of at least 1", got));
        }
        let spans = |extent: usize, count: usize| {
            let span = |index: usize| {
                let (start, end) = (index * extent / count, ((index + 1) * extent).div_ceil(count));
                Span { start, end, extent: end - start }
            };
            (0..count).map(span).collect()
        };
        let windows = Windows { rows: spans(map.height, height), columns: spans(map.width, width) };
        self.window_pool("adaptive_avg_pool2d", WindowPooling::Mean, x, map, windows)
    }

    fn window_pool(
        &mut self,
        operation: &'static str,
        pooling: WindowPooling,
        x: &Var,
        map: Map,
        windows: Windows,
    ) -> Result<(Var, Map)> {
        expect_map(operation, x.value(), map)?;
        let y = self.device().window_pool(pooling, x.value(), map, &windows);
        let (source, x_value, y_value, output) = (x.source(), x.value().clone(), y.clone(), windows.output(map));
        let y = self.record(&[x], y, move |backward, dy| {
            let dx = backward.device.window_pool_backward(pooling, &x_value, &y_value, map, &windows, &dy);
            backward.add(source, dx);
            Ok(())
        });
        Ok((y, output))
    }
}
