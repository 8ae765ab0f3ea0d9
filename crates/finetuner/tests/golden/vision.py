"""Golden numbers of image encoders and CLIP, from transformers, timm, torchvision and open_clip.

Writes vision/<name>/{config.json or open_clip_config.json, *.safetensors, golden.safetensors} beside this file:

    python vision.py [name ...]

The weights are random and stored as float32 under the names each library gives them. Everything in golden.safetensors was
computed in float64 from exactly those weights (evaluation mode) and rounded to float32 once, at the end. H = 32, P = 16:

    pixels              F32 [3, 24, 24, 3]   pictures, height, width, colours
    image               F32 [3, H or P]      the class token after the last norm; CLIP: projected, not normalised;
                                             convolutional networks: the mean over the last map, in evaluation mode
    larger, larger.pixels                    vision transformers: the same for pictures of 40 x 32
    training, statistic.<name>               convolutional networks: the same in training mode, and what became of the
                                             running statistics. The gradients of ResNets are of training mode, those
                                             of the others of evaluation mode: in training even PyTorch's own float32
                                             gradients of MobileNetV2 are off by a quarter, those of EfficientNet by 1 %
    upstream.image      F32 as image         a fixed random cotangent
    ids, offsets        I32 [T], [4]         CLIP: packed texts, each ends with the largest id
    text, upstream.text F32 [3, P]           CLIP: as for images
    gradient.<name>                          d (sum image * upstream.image + sum text * upstream.text) / d parameter
"""

import json
import os
import sys
from pathlib import Path

import open_clip
import timm
import torch
import torchvision
import transformers as t
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)  # a fixed summation order: the same file every time
HERE = Path(__file__).parent / "vision"
HIDDEN, PROJECTED, SIDE, VOCABULARY = 32, 16, 24, 67
LENGTHS = [3, 12, 7]
VISION = dict(
    hidden_size=HIDDEN,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    image_size=SIDE,
    patch_size=8,
)
TEXT = dict(
    vocab_size=VOCABULARY,
    hidden_size=HIDDEN,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=12,
    eos_token_id=VOCABULARY - 1,
    bos_token_id=VOCABULARY - 2,
    pad_token_id=1,
)
DINOV2 = {key: value for key, value in VISION.items() if key != "intermediate_size"} | dict(mlp_ratio=2)
TIMM = dict(img_size=SIDE, patch_size=8, embed_dim=HIDDEN, depth=2, num_heads=4, mlp_ratio=1.5)
OPEN_CLIP_VISION = dict(layers=2, width=HIDDEN, head_width=8, patch_size=8, image_size=SIDE, mlp_ratio=2.0)
OPEN_CLIP_TEXT = dict(context_length=12, vocab_size=VOCABULARY, width=HIDDEN, heads=4, layers=2)
RESNET = dict(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 2, 1, 1])
XLM_ROBERTA = dict(
    vocab_size=VOCABULARY,
    hidden_size=HIDDEN,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=40,
    type_vocab_size=1,
    pad_token_id=1,
    layer_norm_eps=1e-5,
)


def transformers_model(build, config):
    def make(folder):
        config._attn_implementation = "eager"
        config.architectures = [build.__name__]
        config.save_pretrained(folder)
        return build(config)

    return make, "model.safetensors"


def timm_model(architecture, **arguments):
    def make(folder):
        config = dict(architecture=architecture, num_classes=0, num_features=HIDDEN, model_args=arguments)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        return timm.create_model(architecture, num_classes=0, **arguments)

    return make, "model.safetensors"


def open_clip_model(text, **more):
    def make(folder):
        config = dict(embed_dim=PROJECTED, vision_cfg=OPEN_CLIP_VISION, text_cfg=text, **more)
        (folder / "open_clip_config.json").write_text(json.dumps(dict(model_cfg=config), indent=2) + "\n")
        if "hf_model_name" not in text:
            return open_clip.CLIP(**config)
        t.XLMRobertaConfig(**XLM_ROBERTA).save_pretrained(folder / text["hf_model_name"])
        os.chdir(folder)
        return open_clip.CustomTextCLIP(**config)

    return make, "open_clip_model.safetensors"


def timm_network(architecture, build, **arguments):
    def make(folder):
        config = dict(architecture=architecture, model_args=arguments)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        return build(**arguments)

    return make, "model.safetensors"


def torchvision_efficientnet(**arguments):
    blocks, _ = torchvision.models.efficientnet._efficientnet_conf("efficientnet_b0", **arguments)
    return torchvision.models.EfficientNet(blocks, dropout=0.0, stochastic_depth_prob=0.0)


def tensorflow_efficientnet(**arguments):
    build = timm_generated("_gen_efficientnet", "tf_efficientnet_b0")
    return build(**arguments, pad_type="same", bn_eps=1e-3, bn_momentum=0.01)


def timm_resnet(name):
    return lambda **arguments: timm.create_model(name, num_classes=0, **arguments)


def timm_generated(generate, *fixed):
    return lambda **arguments: getattr(timm.models.efficientnet, generate)(*fixed, **arguments, num_classes=0)


HF_TEXT = dict(
    hf_model_name="text",
    hf_tokenizer_name="text",
    hf_proj_type="mlp",
    hf_pooler_type="mean_pooler",
    hf_model_pretrained=False,
)
MODELS = {
    "vit": transformers_model(t.ViTModel, t.ViTConfig(**VISION)),
    "deit": transformers_model(t.DeiTModel, t.DeiTConfig(**VISION, qkv_bias=False)),
    "dinov2": transformers_model(t.Dinov2Model, t.Dinov2Config(**DINOV2)),
    "timm-vit": timm_model("vit_tiny_patch16_224", **TIMM),
    "timm-dinov2": timm_model("vit_small_patch14_dinov2", **TIMM, init_values=1.0),
    "clip": transformers_model(
        t.CLIPModel, t.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=PROJECTED)
    ),
    "siglip": transformers_model(t.SiglipModel, t.SiglipConfig(text_config=TEXT, vision_config=VISION)),
    "open-clip": open_clip_model(OPEN_CLIP_TEXT),
    "open-clip-quick": open_clip_model(OPEN_CLIP_TEXT, quick_gelu=True),
    "open-clip-multi": open_clip_model(HF_TEXT),
    "resnet18": timm_network("resnet18", timm_resnet("resnet18"), layers=[1, 2, 1, 1], channels=[8, 8, 16, 16]),
    "resnet50": timm_network("resnet50", timm_resnet("resnet50"), layers=[1, 2, 1, 1], channels=[4, 4, 8, 8]),
    "resnet-transformers": transformers_model(t.ResNetModel, t.ResNetConfig(**RESNET)),
    "resnet-basic": transformers_model(t.ResNetModel, t.ResNetConfig(**RESNET, layer_type="basic")),
    "mobilenet-torchvision": timm_network("mobilenet_v2", torchvision.models.mobilenet_v2, width_mult=0.1),
    "mobilenet-timm": timm_network("mobilenetv2_010", timm_generated("_gen_mobilenet_v2", "mobilenetv2_100", 0.1)),
    "efficientnet-torchvision": timm_network(
        "efficientnet_b0", torchvision_efficientnet, width_mult=0.1, depth_mult=0.5
    ),
    "efficientnet-timm": timm_network(
        "efficientnet_b0",
        timm_generated("_gen_efficientnet", "efficientnet_b0"),
        channel_multiplier=0.1,
        depth_multiplier=0.5,
    ),
    "efficientnet-tensorflow": timm_network(
        "tf_efficientnet_b0", tensorflow_efficientnet, channel_multiplier=0.1, depth_multiplier=0.5
    ),
    "dinov2-registers": transformers_model(
        t.Dinov2WithRegistersModel, t.Dinov2WithRegistersConfig(**DINOV2, num_register_tokens=3)
    ),
    "dinov2-giant": transformers_model(t.Dinov2Model, t.Dinov2Config(**DINOV2, use_swiglu_ffn=True)),
    "timm-registers": timm_model("vit_small_patch14_reg4_dinov2", **TIMM, init_values=1.0),
    "timm-giant": timm_model("vit_giant_patch14_reg4_dinov2", **TIMM, init_values=1.0),
}
CONVOLUTIONAL = ("resnet", "mobilenet", "efficientnet")


def randomise(model, generator):
    """Every parameter gets values that no default hides: no zero biases, no unit norms."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            vector = parameter.dim() == 1 and name.endswith(("weight", "gamma", "lambda1"))
            spread = 0.2 if parameter.dim() < 4 or parameter.shape[-1] == 8 else (2 / parameter[0].numel()) ** 0.5
            parameter.copy_(1 + 0.3 * noise if vector else spread * noise)
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                noise = torch.randn(buffer.shape, generator=generator)
                buffer.copy_(0.1 * noise if name.endswith("mean") else noise.abs() + 0.5)


def texts(generator, padded):
    """Ids and mask, right-padded; each text ends with the largest id, as CLIP's do."""
    longest = 12
    ids = torch.full((len(LENGTHS), longest), 1)
    mask = torch.zeros(len(LENGTHS), longest, dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        ids[row, : length - 1] = torch.randint(5, VOCABULARY - 2, (length - 1,), generator=generator)
        ids[row, length - 1] = VOCABULARY - 1
        mask[row, : longest if padded else length] = 1
    return ids, mask


def embed(name, model, pixels, ids, mask):
    if name == "clip":
        text = model.text_projection(model.text_model(ids, attention_mask=mask).pooler_output)
        return model.visual_projection(model.vision_model(pixels).pooler_output), text
    if name == "siglip":  # its texts are padded, and nothing masks the padding
        return model.vision_model(pixels).pooler_output, model.text_model(ids).pooler_output
    if name.startswith("open-clip"):
        return model.encode_image(pixels), model.encode_text(ids)
    if name.startswith(CONVOLUTIONAL):
        features = getattr(model, "forward_features", None) or getattr(model, "features", model)
        rows = features(pixels)
        return getattr(rows, "last_hidden_state", rows).mean((2, 3)), None
    if name.startswith("timm"):
        return model.forward_features(pixels)[:, 0], None
    return model(pixels).last_hidden_state[:, 0], None


def wanted(key):
    """Not what is made anew, nor counts of batches, nor a classifier: its 1,000 classes would be most of the file."""
    return key != "attn_mask" and not key.endswith("num_batches_tracked") and not key.startswith("classifier")


def larger(name, model, pixels):
    if name.startswith("timm"):
        # What timm does where a model is built for other pictures.
        from timm.layers import resample_abs_pos_embed

        size = model.patch_embed.img_size
        model.patch_embed.strict_img_size = False
        positions = model.pos_embed
        resized = resample_abs_pos_embed(
            positions, new_size=[5, 4], num_prefix_tokens=0 if model.no_embed_class else 1
        )
        model.pos_embed = torch.nn.Parameter(resized)
        out = model.forward_features(pixels)[:, 0]
        model.pos_embed, model.patch_embed.img_size = positions, size
        return out
    if name in ("clip", "siglip"):
        return (model.vision_model(pixels, interpolate_pos_encoding=True)).pooler_output
    arguments = {} if name.startswith("dinov2") else dict(interpolate_pos_encoding=True)
    return model(pixels, **arguments).last_hidden_state[:, 0]


def main():
    chosen = sys.argv[1:] or MODELS
    for number, (name, (make, file)) in enumerate(MODELS.items()):
        if name not in chosen:
            continue
        folder = HERE / name
        folder.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(200 + number)
        model = make(folder).eval()
        randomise(model, generator)
        weights = {key: value.clone().contiguous() for key, value in model.state_dict().items() if wanted(key)}
        # transformers keeps some names on disk that are others in memory.
        if isinstance(model, t.PreTrainedModel):
            model.save_pretrained(folder)

            saved = load_file(folder / file)
            on_disk = {value.numpy().tobytes(): key for key, value in saved.items()}
            if name.startswith(CONVOLUTIONAL):
                saved = {key: value for key, value in saved.items() if wanted(key)}
                save_file(saved, folder / file, metadata={"format": "pt"})
        else:
            on_disk = {}
            save_file(weights, folder / file, metadata={"format": "pt"})
        name_of = {key: on_disk.get(value.numpy().tobytes(), key) for key, value in weights.items()}

        model = model.double()
        convolutional = name.startswith(CONVOLUTIONAL)
        side = 64 if convolutional else SIDE
        pixels = torch.randn(3, 3, side, side, generator=generator)
        ids, mask = texts(generator, padded=name == "siglip")
        image, text = embed(name, model, pixels.double(), ids, mask)
        upstream = {"image": torch.randn(image.shape, generator=generator)}
        total = (image * upstream["image"].double()).sum()
        golden = {"pixels": pixels.permute(0, 2, 3, 1).contiguous(), "image": image.detach().float().contiguous()}
        if not convolutional and not name.startswith("open-clip"):
            other = torch.randn(3, 3, 40, 32, generator=generator)
            image = larger(name, model, other.double())
            if name == "clip":
                image = model.visual_projection(image)
            golden |= {
                "larger.pixels": other.permute(0, 2, 3, 1).contiguous(),
                "larger": image.detach().float().contiguous(),
            }
        if convolutional:
            if not name.startswith("resnet"):
                total.backward()  # before anything moves
                total = None
            image, _ = embed(name, model.train(), pixels.double(), None, None)
            golden["training"] = image.detach().float().contiguous()
            if name.startswith("resnet"):
                total = (image * upstream["image"].double()).sum()
            for key, buffer in model.named_buffers():
                if key.endswith(("running_mean", "running_var")):
                    golden[f"statistic.{name_of[key]}"] = buffer.float()
        if text is not None:
            upstream["text"] = torch.randn(text.shape, generator=generator)
            total = total + (text * upstream["text"].double()).sum()
            packed = mask.bool()
            golden |= {
                "text": text.detach().float().contiguous(),
                "ids": ids[packed].int(),
                "offsets": torch.cat([torch.zeros(1, dtype=torch.long), mask.sum(1).cumsum(0)]).int(),
            }
        golden |= {f"upstream.{kind}": value for kind, value in upstream.items()}
        if total is not None:
            total.backward()
        gradients = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}
        for key, gradient in gradients.items():
            if "mlp.up_proj" in key:  # on disk behind the gate
                continue
            if "mlp.gate_proj" in key:
                name_of[key] = key.replace("gate_proj", "weights_in")
                gradient = torch.cat([gradient, gradients[key.replace("gate_proj", "up_proj")]])
            if wanted(key):
                golden[f"gradient.{name_of[key]}"] = gradient.float().contiguous()
        save_file(
            golden,
            folder / "golden.safetensors",
            metadata={"torch": torch.__version__, "transformers": t.__version__, "timm": timm.__version__},
        )
        without = sorted(key for key, parameter in model.named_parameters() if parameter.grad is None)
        print(name, "no gradient:", without)


if __name__ == "__main__":
    main()
