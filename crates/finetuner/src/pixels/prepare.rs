//! Many pictures at once: read, decoded, resized and normalised on threads of their own, packed to micro-batches.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Augmentation, Draw, ImageProcessor, PixelBatch, Sources};
use crate::error::{Error, Result};

/// A picture that is wanted: at which address, and as which random view, if augmented.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// A file, an entry of a shard, or a URL.
    pub address: &'a str,
    /// The random view; `None` without augmentation.
    pub draw: Option<Draw>,
}

/// Turns addresses into packed pixels. Cheap to clone.
///
/// It has threads of its own, fewer than there are cores, so that a batch that is prepared ahead neither waits for the
/// step that is running nor takes all cores from it.
#[derive(Debug, Clone)]
pub struct Preparer {
    processor: Arc<ImageProcessor>,
    augmentation: Option<Arc<Augmentation>>,
    sources: Sources,
    threads: Arc<rayon::ThreadPool>,
}

impl Preparer {
    /// With `threads` threads; 0 is half of the cores.
    ///
    /// # Errors
    /// [`Error::Io`] if the system gives no threads.
    pub fn new(processor: ImageProcessor, sources: Sources, threads: usize) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { (cores / 2).max(1) } else { threads };
        let pool =
            rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|number| format!("pixels {number}"));
        let pool = pool.build().map_err(|error| Error::Io {
            action: "start threads for",
            path: "pictures".into(),
            source: std::io::Error::other(error),
        })?;
        Ok(Preparer { processor: Arc::new(processor), augmentation: None, sources, threads: Arc::new(pool) })
    }

    /// With random views for orders that ask for one.
    ///
    /// # Errors
    /// As [`Augmentation::check`].
    pub fn augmented(self, augmentation: Augmentation) -> Result<Self> {
        augmentation.check()?;
        Ok(Preparer { augmentation: Some(Arc::new(augmentation)), ..self })
    }

    /// What a picture becomes.
    pub fn processor(&self) -> &ImageProcessor {
        &self.processor
    }

    /// The random views, if there are any.
    pub fn augmentation(&self) -> Option<&Augmentation> {
        self.augmentation.as_deref()
    }

    /// Where pictures are read from.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Runs something on these threads.
    pub fn on_threads<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.threads.install(work)
    }

    /// The pictures in their order, in micro-batches of at most `budget` tokens (see [`PixelBatch::tokens`]), at least
    /// one picture each. `rows[i]` is the row of the whole batch that picture `i` belongs to.
    ///
    /// # Errors
    /// [`Error::Picture`] for the first picture that cannot be used.
    ///
    /// # Panics
    /// If `orders` and `rows` differ in length: a bug of the caller.
    pub fn prepare(&self, orders: &[Order<'_>], rows: &[u32], budget: usize) -> Result<Vec<PixelBatch>> {
        assert_eq!(orders.len(), rows.len(), "every picture has a row: bug");
        let (height, width) = self.processor.output();
        let batches = pack(rows, (height as usize, width as usize), budget);
        let numbers = 3 * height as usize * width as usize;
        self.on_threads(|| {
            let mut orders = orders;
            batches
                .into_iter()
                .map(|mut batch| {
                    let (own, rest) = orders.split_at(batch.len());
                    orders = rest;
                    let pictures = batch.values.par_chunks_exact_mut(numbers).zip(own);
                    pictures.try_for_each(|(values, order)| self.picture(order, values))?;
                    Ok(batch)
                })
                .collect()
        })
    }

    fn picture(&self, order: &Order<'_>, values: &mut [f32]) -> Result<()> {
        let picture = self.sources.picture(order.address)?;
        let processor = &self.processor;
        let (height, width) = processor.output();
        match (&self.augmentation, order.draw) {
            (Some(augmentation), Some(draw)) => {
                let shape = |picture: &_| processor.shape(picture);
                let view = augmentation.view(&picture, (width, height), processor.filter, shape, draw);
                processor.normalise(&view, values);
                augmentation.erase(values, width, height, draw);
            }
            _ => processor.normalise(&processor.shape(&picture), values),
        }
        Ok(())
    }
}

/// Batches of black pictures for these rows, in their order, each of at most `budget` tokens.
pub fn pack(rows: &[u32], (height, width): (usize, usize), budget: usize) -> Vec<PixelBatch> {
    let one = PixelBatch { values: Vec::new(), height, width, examples: vec![0] }.tokens();
    let batch = |rows: &[u32]| PixelBatch {
        values: vec![0.0; 3 * height * width * rows.len()],
        height,
        width,
        examples: rows.to_vec(),
    };
    rows.chunks((budget / one).max(1)).map(batch).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Picture;
    use super::*;

    fn photo(folder: &std::path::Path, name: &str, colour: [u8; 3]) -> String {
        let path = folder.join(name);
        let picture = Picture::filled(40, 30, colour);
        image::save_buffer(&path, &picture.pixels, 40, 30, image::ExtendedColorType::Rgb8).unwrap();
        path.display().to_string()
    }

    fn preparer() -> Preparer {
        let processor = ImageProcessor { mean: [0.0; 3], deviation: [1.0; 3], ..ImageProcessor::imagenet(20, 16) };
        Preparer::new(processor, Sources::default(), 2).unwrap()
    }

    #[test]
    fn pictures_stand_in_their_order_in_batches_of_the_budget() {
        let folder = tempfile::tempdir().unwrap();
        let addresses: Vec<String> =
            (0..5u8).map(|number| photo(folder.path(), &format!("{number}.png"), [number * 50; 3])).collect();
        let orders: Vec<Order<'_>> = addresses.iter().map(|address| Order { address, draw: None }).collect();
        let batches = preparer().prepare(&orders, &[7, 8, 9, 3, 4], 2).unwrap();
        let rows: Vec<&[u32]> = batches.iter().map(|batch| &batch.examples[..]).collect();
        assert_eq!(rows, [&[7, 8][..], &[9, 3], &[4]]);
        for (number, values) in batches.iter().flat_map(|batch| batch.values.chunks(3 * 16 * 16)).enumerate() {
            assert!(values.iter().all(|value| (value - number as f32 * 50.0 / 255.0).abs() < 1e-6), "{number}");
        }
        assert_eq!(
            preparer().prepare(&orders, &[0; 5], 1).unwrap().len(),
            5,
            "a picture beyond the budget stands alone"
        );
        assert!(preparer().prepare(&[], &[], 9).unwrap().is_empty());
    }

    #[test]
    fn a_missing_picture_is_told_by_its_address() {
        let order = Order { address: "photos/no.jpg", draw: None };
        let error = preparer().prepare(&[order], &[0], 9).unwrap_err().to_string();
        assert_eq!(error, "picture `photos/no.jpg`: there is no such file");
    }

    #[test]
    fn views_depend_on_their_draw_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut noise = Picture::filled(40, 30, [0; 3]);
        (0..)
            .zip(&mut noise.pixels)
            .for_each(|(place, value): (u32, _)| *value = (place.wrapping_mul(2_654_435_761) >> 24) as u8);
        let path = folder.path().join("noise.png");
        image::save_buffer(&path, &noise.pixels, 40, 30, image::ExtendedColorType::Rgb8).unwrap();
        let address = path.display().to_string();
        let preparer = preparer().augmented(Augmentation { erase: 0.5, ..Augmentation::default() }).unwrap();
        let draw = |row, view| Some(Draw { seed: 1, epoch: 2, row, view });
        let order = |row, view| Order { address: &address, draw: draw(row, view) };
        let all = preparer.prepare(&[order(0, 0), order(0, 1), order(5, 0), order(0, 0)], &[0, 1, 2, 3], 99).unwrap();
        let views: Vec<&[f32]> = all[0].values.chunks(3 * 16 * 16).collect();
        assert_eq!(views[0], views[3]);
        assert!(views[0] != views[1] && views[0] != views[2] && views[1] != views[2]);
        let alone = preparer.prepare(&[order(5, 0)], &[0], 1).unwrap();
        assert_eq!(alone[0].values, views[2], "whatever else is in the batch");
    }
}
