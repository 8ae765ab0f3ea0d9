use super::super::golden::{self, difference};
use super::*;

fn noise(width: u32, height: u32) -> Picture {
    let key = Key::new(3);
    Picture::new(width, height, (0..3 * u64::from(width * height)).map(|place| key.bits(place) as u8).collect())
}

fn draw(row: u64) -> Draw {
    Draw { seed: 7, epoch: 0, row, view: 0 }
}

#[test]
fn changes_of_colour_are_torchvisions() {
    let small = golden::picture("small", 24, 20);
    type Step<'a> = &'a dyn Fn(&mut Picture);
    let steps: [(&str, Step<'_>); 12] = [
        ("brightness.1.7", &|picture| colour::brightness(picture, 1.7)),
        ("brightness.0.3", &|picture| colour::brightness(picture, 0.3)),
        ("contrast.1.6", &|picture| colour::contrast(picture, 1.6)),
        ("contrast.0.4", &|picture| colour::contrast(picture, 0.4)),
        ("saturation.1.8", &|picture| colour::saturation(picture, 1.8)),
        ("saturation.0.2", &|picture| colour::saturation(picture, 0.2)),
        ("hue.0.2", &|picture| colour::hue(picture, 0.2)),
        ("hue.-0.35", &|picture| colour::hue(picture, -0.35)),
        ("blur.5.1.3", &|picture| colour::blur(picture, 5, 1.3)),
        ("blur.3.0.4", &|picture| colour::blur(picture, 3, 0.4)),
        ("grey", &|picture| colour::to_grey(picture)),
        ("mirror", &|picture| picture.mirror()),
    ];
    for (name, step) in steps {
        let mut found = small.clone();
        step(&mut found);
        let (most, beyond) = difference(&found, &golden::picture(&format!("colour.{name}"), 24, 20));
        assert_eq!((most <= 1, beyond), (true, 0), "{name}: {most} levels");
    }
}

#[test]
fn random_parts_have_the_areas_and_shapes_asked_for() {
    let picture = Picture::filled(200, 150, [0; 3]);
    let augmentation = Augmentation::default();
    let parts: Vec<[u32; 4]> =
        (0..2000).map(|row| augmentation.part(&picture, (0.08, 1.0), draw(row).key().part(CROP))).collect();
    let mut areas = Vec::new();
    for &[left, top, width, height] in &parts {
        assert!(left + width <= 200 && top + height <= 150);
        let (area, ratio) = (f64::from(width * height) / 30_000.0, f64::from(width) / f64::from(height));
        assert!((0.07..=1.0).contains(&area) && (0.72..=1.37).contains(&ratio), "{area} {ratio}");
        areas.push(area);
    }
    // torchvision's mean area of such a picture is 0.4365: what does not fit is drawn again.
    let mean = areas.iter().sum::<f64>() / areas.len() as f64;
    assert!((0.42..0.455).contains(&mean), "{mean}");
    // A picture that no part of the ratio fits into: its middle.
    let narrow = Picture::filled(300, 10, [0; 3]);
    assert_eq!(augmentation.part(&narrow, (0.9, 1.0), draw(0).key()), [143, 0, 13, 10]);
}

#[test]
fn every_step_happens_as_often_as_asked() {
    let picture = noise(8, 8);
    let off =
        Augmentation { crop_scale: None, flip: 0.0, jitter: 0.0, grey: 0.0, blur: 0.0, ..Augmentation::default() };
    let share = |augmentation: &Augmentation| {
        let changed =
            |row: &u64| augmentation.view(&picture, (8, 8), Filter::Bilinear, Picture::clone, draw(*row)) != picture;
        (0..1000).filter(changed).count()
    };
    assert_eq!(share(&off), 0);
    assert!((460..540).contains(&share(&Augmentation { flip: 0.5, ..off.clone() })));
    assert!((760..840).contains(&share(&Augmentation { jitter: 0.8, ..off.clone() })));
    assert!((160..240).contains(&share(&Augmentation { grey: 0.2, ..off.clone() })));
    let erasing = Augmentation { erase: 0.3, ..off };
    let mut erased = 0;
    for row in 0..1000 {
        let mut values = vec![1.0; 3 * 64 * 64];
        erasing.erase(&mut values, 64, 64, draw(row));
        let zeros = values.iter().filter(|value| **value == 0.0).count();
        erased += usize::from(zeros > 0);
        assert!(zeros == 0 || (0.015..0.35).contains(&(zeros as f64 / values.len() as f64)), "{zeros}");
    }
    assert!((260..340).contains(&erased), "{erased}");
}

#[test]
fn a_view_is_a_function_of_its_draw() {
    let picture = noise(60, 40);
    let augmentation = Augmentation::default();
    let view = |draw: Draw| augmentation.view(&picture, (32, 32), Filter::Bicubic, Picture::clone, draw);
    let first = Draw { seed: 1, epoch: 2, row: 3, view: 0 };
    assert_eq!(view(first), view(first));
    let others =
        [Draw { seed: 2, ..first }, Draw { epoch: 3, ..first }, Draw { row: 4, ..first }, Draw { view: 1, ..first }];
    assert!(others.iter().all(|other| view(*other) != view(first)));
    assert_eq!((view(first).width, view(first).height), (32, 32));
}

#[test]
fn options_out_of_range_are_named() {
    let problem = |augmentation: Augmentation| augmentation.check().unwrap_err().to_string();
    let default = Augmentation::default;
    assert!(default().check().is_ok() && Augmentation::supervised().check().is_ok());
    assert_eq!(
        problem(Augmentation { flip: 1.5, ..default() }),
        "`augmentation.flip`: expected a chance from 0 to 1, got 1.5"
    );
    assert!(problem(Augmentation { hue: 0.6, ..default() }).contains("augmentation.hue"));
    assert!(problem(Augmentation { crop_scale: Some((0.9, 0.5)), ..default() }).contains("augmentation.crop_scale"));
    assert!(problem(Augmentation { blur_sigma: (0.0, 1.0), ..default() }).contains("augmentation.blur_sigma"));
    assert!(problem(Augmentation { views: 0, ..default() }).contains("augmentation.views"));
    assert!(problem(Augmentation { brightness: f64::NAN, ..default() }).contains("augmentation.brightness"));
}
