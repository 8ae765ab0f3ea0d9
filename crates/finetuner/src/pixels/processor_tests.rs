use super::super::golden;
use super::*;

fn configs() -> serde_json::Map<String, Value> {
    let text = std::fs::read_to_string(golden::folder().join("configs.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The largest difference from what the reference made of the picture, in levels of 0..255.
fn levels(processor: &ImageProcessor, name: &str, shape: &str) -> f32 {
    let (width, height) = if shape == "wide" { (61, 47) } else { (47, 61) };
    let picture = processor.shape(&golden::picture(shape, width, height));
    let (height, width) = processor.output();
    let mut values = vec![0.0; 3 * height as usize * width as usize];
    processor.normalise(&picture, &mut values);
    let expected = golden::values(&format!("{name}.{shape}"));
    assert_eq!(values.len(), expected.len(), "{name}");
    let level = |at: usize| (processor.rescale / processor.deviation[at % 3]) as f32;
    let differences = values.iter().zip(&expected).enumerate();
    differences.map(|(at, (found, expected))| (found - expected).abs() / level(at)).fold(0.0, f32::max)
}

#[test]
fn processors_of_transformers_and_timm_are_matched_within_a_level() {
    for (name, config) in configs() {
        let (processor, golden) = match name.strip_prefix("timm.") {
            Some(_) => (ImageProcessor::from_timm("m", &config), name.clone()),
            None => (ImageProcessor::from_json("m", &config), format!("processor.{name}")),
        };
        let processor = processor.unwrap();
        for shape in ["wide", "tall"] {
            let most = levels(&processor, &golden, shape);
            assert!(most <= 1.001, "{name} {shape}: {most} levels");
        }
    }
}

#[test]
fn what_is_written_is_read_back() {
    for (name, config) in configs() {
        let read = if name.starts_with("timm.") { ImageProcessor::from_timm } else { ImageProcessor::from_json };
        let processor = ImageProcessor { middle: Middle::Floor, ..read("m", &config).unwrap() };
        let again = ImageProcessor::from_json("m", &processor.to_json()).unwrap();
        assert_eq!(again, processor, "{name}");
    }
    assert_eq!(ImageProcessor::clip(224).to_json()["image_mean"].to_string(), "[0.48145466,0.4578275,0.40821073]");
}

#[test]
fn older_files_and_defaults_are_understood() {
    let read = |config: Value| ImageProcessor::from_json("m", &config).unwrap();
    let clip =
        read(json!({"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, "resample": 3}));
    assert_eq!(clip, ImageProcessor::clip(224));
    let vit = read(json!({"feature_extractor_type": "ViTFeatureExtractor", "size": 224}));
    assert_eq!((vit.size, vit.crop), (Some(Size::Exact { height: 224, width: 224 }), None));
    assert_eq!(vit.mean, [0.5; 3]);
    let convnext = read(json!({"feature_extractor_type": "ConvNextFeatureExtractor", "size": 384, "crop_pct": null}));
    assert_eq!((convnext.size, convnext.crop), (Some(Size::Exact { height: 384, width: 384 }), None));
    assert_eq!(read(json!({"image_processor_type": "CLIPImageProcessor"})), ImageProcessor::clip(224));
    assert_eq!(ImageProcessor::imagenet(256, 224).output(), (224, 224));
}

#[test]
fn wrong_values_name_their_key() {
    let problem = |config: Value| ImageProcessor::from_json("m", &config).unwrap_err().to_string();
    for (config, expected) in [
        (json!({"size": "large"}), "`size`: expected 1 to 16384 pixels, got `\"large\"`"),
        (json!({"size": {"longest_edge": 9}}), "`size`: expected `shortest_edge`, or `height` and `width`"),
        (json!({"size": 0}), "`size`: expected 1 to 16384 pixels, got `0`"),
        (json!({"resample": 9}), "`resample`: expected a number of Pillow's filters, 0 to 5, got `9`"),
        (json!({"do_resize": 1}), "`do_resize`: expected true or false, got `1`"),
        (json!({"image_std": [1, 2]}), "`image_std`: expected three numbers, for red, green and blue, got `[1,2]`"),
        (json!({"rescale_factor": 0}), "`rescale_factor`: expected a number above 0, got `0`"),
        (json!({"size": {"shortest_edge": 9}}), "pictures would have different sizes"),
        (json!({"do_pad": true, "pad_size": {"height": 1, "width": 1}}), "`do_pad`: padding is not implemented"),
    ] {
        let problem = problem(config);
        assert!(problem.starts_with("model `m`: ") && problem.contains(expected), "{problem}");
    }
    let timm = |config: Value| ImageProcessor::from_timm("m", &config).unwrap_err().to_string();
    assert!(timm(json!({"interpolation": "bicubi"})).contains("did you mean `bicubic`?"));
    assert!(timm(json!({"crop_mode": "border"})).contains("`crop_mode`: `border` is not implemented"));
}

#[test]
fn another_size_of_results_scales_what_is_cut() {
    let larger = ImageProcessor::imagenet(256, 224).with_output(448, 448);
    assert_eq!((larger.size, larger.output()), (Some(Size::ShortestEdge(512)), (448, 448)));
}
