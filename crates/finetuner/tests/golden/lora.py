"""Golden numbers of low-rank adapters, from peft on the encoders beside this file.

Writes lora/<case>/{adapter_config.json, adapter_model.safetensors, golden.safetensors}. Run it with the environment of
benchmarks/peers/requirements.txt, after encoders.py:

    python lora.py

Both matrices are random, so that neither hides the other, and stored as float32. golden.safetensors was computed in
float64 from exactly those, on the packed batch of encoders/<family>/golden.safetensors:

    pooled.mean         F32 [4, H]
    gradient.<name>     d sum(pooled.mean * upstream) / d matrix, by its name in adapter_model.safetensors
"""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel

torch.set_num_threads(1)
HERE = Path(__file__).parent
CASES = {
    "bert": ("bert", ["query", "value"], 4, 8),
    "bert-all": ("bert", "all-linear", 2, 3),
    "distilbert": ("distilbert", ["k_lin", "lin2"], 3, 3),
    "mpnet": ("mpnet", ["attn.o", "intermediate.dense"], 5, 16),
}


def padded(golden):
    """Ids, types and mask, right-padded, of the packed batch."""
    ends = golden["offsets"].tolist()
    lengths = [end - start for start, end in zip(ends, ends[1:])]
    ids = torch.ones(len(lengths), max(lengths), dtype=torch.long)
    types, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, (start, length) in enumerate(zip(ends, lengths)):
        ids[row, :length] = golden["ids"][start : start + length]
        types[row, :length] = golden["type_ids"][start : start + length]
        mask[row, :length] = 1
    return ids, types, mask


def main():
    for case, (family, targets, rank, alpha) in CASES.items():
        generator = torch.Generator().manual_seed(7)
        base = HERE / "encoders" / family
        golden = load_file(base / "golden.safetensors")
        model = AutoModel.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, task_type="FEATURE_EXTRACTION")
        model = get_peft_model(model, config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(HERE / "lora" / case)
        settings = HERE / "lora" / case / "adapter_config.json"
        saved = json.loads(settings.read_text())
        saved["base_model_name_or_path"] = f"../../encoders/{family}"
        if isinstance(saved["target_modules"], list):
            saved["target_modules"].sort()  # a set: its order changes from run to run
        settings.write_text(json.dumps(saved, indent=2) + "\n")
        (HERE / "lora" / case / "README.md").unlink(missing_ok=True)

        model = model.double()
        ids, types, mask = padded(golden)
        extra = {"token_type_ids": types} if family.startswith("bert") else {}
        hidden = model(input_ids=ids, attention_mask=mask, **extra).last_hidden_state
        keep = mask.unsqueeze(-1).double()
        pooled = (hidden * keep).sum(1) / keep.sum(1)
        (pooled * golden["upstream"].double()).sum().backward()
        result = {"pooled.mean": pooled.detach().float()}
        for name, parameter in model.named_parameters():
            if "lora_" in name and parameter.grad is not None:
                result["gradient." + name.replace(".default", "")] = parameter.grad.float()
        save_file(result, HERE / "lora" / case / "golden.safetensors")


if __name__ == "__main__":
    main()
