# SPDX-License-Identifier: MIT
"""Hugging Face's Trainer: a small GPT-2 on bytes of Python's own sources, half pruned. (pip install adamwprune[hf])"""

import torch
from digits import options, sparsity
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

import adamwprune as ap
from adamwprune import data
from adamwprune.integrations.transformers import PruneCallback

BLOCK = 64

chosen = options(steps=120, sparsity=0.5)
text = data.load_text("stdlib", "data")
train = data.Windows.shuffled(text.train, BLOCK, seed=0)
ids, _ = train.batch(0, 2048)
held_out, _ = data.Windows.consecutive(text.test, BLOCK).batch(0, 128)

set_seed(0)
model = GPT2LMHeadModel(
    GPT2Config(vocab_size=256, n_positions=BLOCK, n_embd=64, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
)
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        str(chosen.folder),
        max_steps=chosen.steps,
        per_device_train_batch_size=16,
        save_steps=chosen.steps // 2,
        logging_steps=chosen.steps // 6,
        lr_scheduler_type="cosine",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    ),
    train_dataset=[{"input_ids": row, "labels": row} for row in ids],
    # In place of optim="adamw_torch": groups with names, and the length of the run left to the callback.
    optimizer_cls_and_kwargs=(
        ap.AdamWPrune,
        {
            "params": ap.param_groups(model, weight_decay=0.1),
            "lr": 3e-3,
            "prune": ap.Prune(sparsity=chosen.sparsity),
        },
    ),
    callbacks=[PruneCallback()],
)
trainer.train(resume_from_checkpoint=str(chosen.folder / f"checkpoint-{chosen.steps // 2}") if chosen.resume else None)

model.eval()
with torch.no_grad():
    right = model(held_out).logits[:, :-1].argmax(-1) == held_out[:, 1:]
pruner = trainer.optimizer.optimizer.pruner  # the Trainer's optimizer is accelerate's wrapper
print(f"step {pruner.step}: sparsity {sparsity(model, pruner):.2%}, next byte right {float(right.float().mean()):.2%}")
