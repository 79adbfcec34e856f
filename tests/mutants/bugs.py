"""The known bugs: of a first course on diffusion models, of what users of such programs report, and of slips.

A new one is one entry. Names say what is wrong.
"""

from tests.mutants.mutant import Edit, Mutant


def one(file: str, *bugs: tuple[str, str, str]) -> list[Mutant]:
    """Mutants of a file: name, right text, wrong text."""
    return [Mutant(name, Edit(file, right, wrong)) for name, right, wrong in bugs]


FORWARD_PROCESS = [
    *one(
        "diffusion/schedules.py",
        ("variance in place of deviation before the noise", "x0 + sigma * noise\n", "x0 + sigma**2 * noise\n"),
        ("alphas_cumprod without its root before x_0", "dim=0).sqrt()", "dim=0)"),
        ("schedule shifted by one", "float(column[index]) for", "float(column[index - 1]) for"),
        ("noise levels of EDM not log-normal", "p.log_sigma_std)", "p.log_sigma_std / 2)"),
        ("zero terminal SNR changes the beginning", "* alpha[0] / (alpha[0]", "/ (alpha[0]"),
        ("betas of the cosine not limited", ".clamp(max=0.999)", ""),
    ),
    *one(
        "diffusion/losses.py",
        ("network evaluated at x_0 in place of x_t", "network(c_in * xt", "network(c_in * x0"),
        ("EDM: x_t not scaled for the network", "network(c_in * xt", "network(xt"),
        ("weights of the loss left out", "schedule.weight[indices] * error", "error"),
        (
            "classes not given to the network",
            "schedule.c_noise[indices], labels, ",
            "schedule.c_noise[indices], None, ",
        ),
        ("absolute in place of squared error", "F.mse_loss(", "F.l1_loss("),
    ),
    *one(
        "diffusion/targets.py",
        (
            "sign of v",
            "sigma: -sigma, noise_weight=lambda alpha, sigma: alpha",
            "sigma: sigma, noise_weight=lambda alpha, sigma: -alpha",
        ),
        ("min-SNR the same for all targets", " / target.slope(alpha, sigma).square()", ""),
        ("min-SNR of v without its + 1", "target.slope(alpha, sigma).square()", "(alpha / sigma).square()"),
        ("min-SNR as max", ".clamp(max=p.min_snr_gamma)", ".clamp(min=p.min_snr_gamma)"),
        ("sign on the way back to x_0", "(b * x - sigma * prediction)", "(b * x + sigma * prediction)"),
    ),
]

SAMPLING = [
    *one(
        "diffusion/samplers.py",
        ("coefficients of the posterior mean swapped", "coef_x0 * x0 + coef_xt * x", "coef_xt * x0 + coef_x0 * x"),
        ("variance in place of deviation in ancestral steps", ") ** 2) ** 0.5) * noise()", ") ** 2)) * noise()"),
        ("eta ignored", "sigma_noise = eta * beta**0.5", "sigma_noise = 0 * beta**0.5"),
        ("eta adds noise on top", "(nxt.sigma**2 - sigma_noise**2) ** 0.5", "nxt.sigma"),
        ("noise in the last step", "if nxt.sigma > 0:\n            x = x + (", "if True:\n            x = x + ("),
        ("DPM-Solver++ of first order", "if nxt.sigma > 0 and h_prev < math.inf else x0", "if False else x0"),
        ("DPM-Solver++ looks back", "(2 * h_prev) * (x0 - x0_prev)", "(2 * h_prev) * (x0_prev - x0)"),
        ("Heun of first order", "if nxt.sigma > 0 and cur.sigma <= sigma_max * cur.alpha:", "if False:"),
    ),
    Mutant(
        "noise of DDIM not derived again after clamping",
        Edit("diffusion/denoiser.py", "return x0.clamp(-1, 1)", "return x0"),
        Edit("diffusion/samplers.py", "x = nxt.alpha * x0 +", "x = nxt.alpha * x0.clamp(-1, 1) +"),
        Edit("diffusion/samplers.py", "x = coef_x0 * x0 +", "x = coef_x0 * x0.clamp(-1, 1) +"),
    ),
    *one(
        "diffusion/denoiser.py",
        ("predicted x_0 not clamped", "return x0.clamp(-1, 1)", "return x0"),
        ("guidance everywhere", " or not self._within(step)", ""),
        ("EDM: x_t not scaled in sampling", "self._guided(step.c_in * x", "self._guided(x"),
        ("sign of the guidance", "_scale * (conditional - unconditional)", "_scale * (unconditional - conditional)"),
        ("guidance from the conditional side", "return unconditional +", "return conditional +"),
        ("halves of the guided batch mixed up", "torch.cat([self.labels, empty])", "torch.cat([empty, self.labels])"),
        ("a real class as the empty label", "self.labels, self.network.num_classes)", "self.labels, 0)"),
        ("device: timesteps of sampling", "c_noise, device=x.device)", "c_noise)"),
    ),
    *one(
        "diffusion/noise.py",
        ("uniform noise in sampling", "torch.randn(shape, generator=g)", "torch.rand(shape, generator=g)"),
        ("seed: sampling without its generators", "torch.randn(shape, generator=g)", "torch.randn(shape)"),
        (
            "one generator for the whole batch",
            "[generator_for(seed, index) for index in indices]",
            "[generator_for(seed)] * len(indices)",
        ),
        ("device: noise of sampling", "for g in generators]).to(device)", "for g in generators])"),
    ),
    *one(
        "diffusion/sampling.py",
        ("seed: the same for all samples", "image_noise(seed, indices,", "image_noise(0, indices,"),
        ("device: labels of sampling", "t if t is None else t.to(device)", "t"),
        ("strength ignored", "self.strength * (len", "1.0 * (len"),
        ("device: noise asked for on the CPU", "indices, image_shape, device)", "indices, image_shape)"),
        ("options of the sampler lost", "noise, **plan.options or {})", "noise)"),
    ),
    *one(
        "sampling/generation.py",
        ("every batch of samples begins at number 0", "indices.tolist(),\n", "range(len(indices)),\n"),
    ),
]

NETWORK = [
    *one(
        "models/blocks.py",
        ("time embedding added without a view", "(embedding)[:, :, None, None]", "(embedding)"),
        (
            "time embedding broadcast over the batch",
            "(embedding)[:, :, None, None]",
            "(embedding).mean(0)[:, None, None]",
        ),
        (
            "time embedding broadcast over the channels",
            "(embedding)[:, :, None, None]",
            "(embedding).mean(1)[:, None, None, None]",
        ),
        ("sines and cosines swapped", "[angles.sin(), angles.cos()]", "[angles.cos(), angles.sin()]"),
        ("frequencies of the embedding", "/ (half - 1)", "/ half"),
        ("downsampling padded left and top", "(0, 1, 0, 1)", "(1, 0, 1, 0)"),
        ("heads of attention mixed with pixels", ".transpose(1, 2).reshape(n, h * w, c)", ".reshape(n, h * w, c)"),
        ("dropout left out", "nn.Dropout(p.dropout)", "nn.Dropout(0.0)"),
        (
            "device: frequencies of the embedding",
            "dtype=torch.float32, device=timesteps.device)",
            "dtype=torch.float32)",
        ),
    ),
    *one(
        "models/unet.py",
        ("class embedding not added", "return embedding + self.class_embedding(labels)", "return embedding"),
        ("embedding of the augmentation with a bias", "embedding_width, bias=False)", "embedding_width)"),
        (
            "no label means class 0",
            "torch.full_like(timesteps, self.num_classes, dtype",
            "torch.zeros_like(timesteps, dtype",
        ),
    ),
    *one("models/networks.py", ("dropout is active in an exported model", "return network.eval()", "return network")),
]

OWN_PICTURES = [
    *one(
        "ingestion/decoding.py",
        ("pictures lie on their sides", "turned = _turn_upright(image)", "turned = False"),
        ("profiles of colours not read", "in_srgb = _in_srgb(image)", "in_srgb = image"),
        (
            "only the low byte of sixteen bits",
            "np.minimum(values, largest) * 255 + largest // 2",
            "values % 256 * largest",
        ),
        ("values above the used bits wrap around", "np.minimum(values, largest)", "(values & largest)"),
        (
            "the colour behind transparent pixels counts",
            "_on_background(image, background) if image",
            "image if False and image",
        ),
        ("transparent pixels black", "(*background, 255)", "(0, 0, 0, 255)"),
        ("bombs decoded", "if max_pixels is not None and image.width * image.height > max_pixels:", "if False:"),
        ("made smaller without a filter", "Image.Resampling.LANCZOS", "Image.Resampling.NEAREST"),
        ("a borrowed height", "size = (target.width, target.height)", "size = (target.height, target.width)"),
    ),
    *one(
        "ingestion/probing.py",
        (
            "few images in colour decide for all",
            "fraction_in_colour(looks, pixels) < FEW_IN_COLOUR",
            "not pixels['colour']",
        ),
        (
            "stores of another conversion stay valid",
            "if chosen.channels != from_headers.channels else []",
            "if False else []",
        ),
        ("the used bits of the last image", '"bits": max(deep, default=None)', '"bits": deep[-1] if deep else None'),
    ),
    *one(
        "ingestion/given.py",
        ("16-bit images of one's own stay dark", "if probed.deep and target.value_bits is None:", "if False:"),
    ),
    *one(
        "ingestion/report.py",
        (
            "the first images of each class",
            "rng.choice(rows, min(each, len(rows)), replace=False, shuffle=False)",
            "rows[:each]",
        ),
    ),
    *one(
        "sampling/inputs.py",
        (
            "a mask's transparent parts are generated",
            "1, images.fit, BLACK, images",
            "1, images.fit, (255, 255, 255), images",
        ),
        ("a mask of another shape than its image", "> rounding:", "> 10**9:"),
    ),
    *one(
        "ingestion/listing.py",
        ("names that lead out are classes", "[PROBLEMS.index(UNREADABLE), PROBLEMS.index(OUTSIDE)]", "[]"),
        ("suffixes in capitals unknown", ".lower() in SUFFIXES", " in SUFFIXES"),
        ("changes of files unnoticed", "% (entry.name, entry.size, entry.stamp, ", "% (entry.name, 0, 0, "),
    ),
    *one(
        "ingestion/containers.py",
        ("links out of the folder followed", "if common != self.root and not self.follow:", "if False:"),
        ("links in a circle followed", "or target in self.seen", ""),
        ("names that lead out of an archive", 'OUTSIDE if path.is_absolute() or ".." in path.parts else ""', '""'),
        ("links in archives read", "SPECIAL if not member.isreg() or member.issparse() else", "None or"),
    ),
    *one(
        "ingestion/class_folders.py",
        ("splits taken as classes", "if splits and depth is not None and", "if False and"),
        (
            "classes in the order they came",
            "sorted(np.unique(numbers[numbers >= 0]).tolist(), key=",
            "(lambda found, key: sorted(found))(np.unique(numbers[numbers >= 0]).tolist(), key=",
        ),
        ("the test split held out beside validation", 'if holdout == "test" else UNUSED', "if True else UNUSED"),
    ),
    *one(
        "ingestion/image_files.py",
        ("images beside the classes are of the last one", "used &= (listing.labels >= 0)", "used &= True"),
        ("holdout by place in the listing", "map(self.listing.name, range", "map(lambda row: b'%d' % row, range"),
    ),
    *one(
        "ingestion/splitting.py",
        ("classes without a training image", "training[kept] = True", "pass"),
    ),
    *one(
        "ingestion/lazy_store.py",
        ("labels in another order", "labels.append(label)", "labels.insert(0, label)"),
        ("the last files left out", "rows[start : start + each]", "rows[start : start + each - 1]"),
    ),
    *one(
        "images/store.py",
        ("a shard's pictures taken from another", 'side="right"', 'side="left"'),
        ("pictures in the order of their shards", 'np.argsort(numbers, kind="stable")', "np.arange(len(numbers))"),
    ),
    *one(
        "atomic.py",
        (
            "what another process is writing is removed",
            "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the writer lives",
            "pass",
        ),
        ("weights for their owner alone", "each.chmod(folder.stat().st_mode & 0o666)", "pass"),
        ("no copy to another disk", "if error.errno != errno.EXDEV:", "if True:"),
    ),
    *one("datasets/catalog.py", ("Kedro's own datasets write in place", "if path is None:", "if True:")),
    *one(
        "datasets/base.py",
        ("what is elsewhere is not fetched", "                if fetched:", "                if False:"),
    ),
    *one(
        "hooks/wandb_run.py",
        ("a training from scratch logged to the earlier W&B run", " + (resumed is None and bool(state))", ""),
        ("defaults override variables of W&B", "if name not in elsewhere}", "}"),
    ),
    *one(
        "datasets/image_store.py",
        (
            "what another left is taken",
            "if unfinished.is_file() and read_json(unfinished) == made_by.as_dict():",
            "if unfinished.is_file():",
        ),
        ("a source that changed meanwhile goes unnoticed", "        store.check()\n", ""),
        (
            "what is there may hold any share of rejected files",
            'check_rejected(self._meta()["facts"], data.max_rejected_fraction)',
            "pass",
        ),
    ),
    *one(
        "ingestion/shard_writer.py",
        ("shards made again", "if summary is None or (summary", "if True or (summary"),
        ("Ctrl-C waits for what is decoded", "signal.signal(signal.SIGINT, signal.SIG_DFL)", "pass"),
    ),
    *one(
        "ingestion/statistics.py",
        ("any share of rejected files will do", "bad <= max_fraction * (bad", "True or bad <= max_fraction * (bad"),
        ("sums of the first images alone", "of_values[which] += powers", "of_values[which] = powers"),
        ("kinds of files of the last shard alone", "Counter(summary.get(", "Counter(summaries[-1].get("),
    ),
    *one(
        "ingestion/downloading.py",
        ("a wrong checksum will do", "elif found != sha256.lower():", "elif False:"),
        ("a web page kept in place of an archive", "if not fits(part):", "if False:"),
        (
            "a file that was brought before will do",
            'checksum dataset.sha256: downloading it again.", path)\n        return False',
            'checksum dataset.sha256: downloading it again.", path)\n        return True',
        ),
        ("files named as a server likes", 're.sub(r"[^\\w.-]", "_", last).lstrip(".")', "last"),
    ),
    *one(
        "ingestion/transferring.py",
        (
            "the rest of a file for the whole",
            "partial_content = response.status_code == requests.codes.partial_content",
            "partial_content = True",
        ),
        ("an endless trickle is accepted", "if received < SLOW * seconds:", "if False:"),
        ("what has come comes again", "if done and version_file.is_file():", "if False:"),
        ("given up at the first trouble", "if attempt == TRIES - 1:", "if True:"),
        ("a body without end fills the disk", "free < LEFT_FREE + rest", "free < 0"),
    ),
    *one(
        "provenance.py",
        (
            "files of two URLs are one",
            "f\"{address}{'?' if kept else ''}{'&'.join(kept)}{hash_mark}{fragment}\"",
            "address",
        ),
    ),
    *one(
        "ingestion/array_file.py",
        ("pickles executed", "allow_pickle=False", "allow_pickle=True"),
        ("floats cut to bytes", "if images.dtype != np.uint8:", "if False:"),
    ),
    *one(
        "ingestion/array_images.py",
        ("labels of other rows", "int(self.labels[index])", "int(self.labels[0])"),
    ),
    *one(
        "ingestion/unpacking.py",
        ("each process downloads for itself", "        lock.acquire()\n    try:", "        pass\n    try:"),
        ("a small file may fill the disk", "free < LEFT_FREE + len(block)", "free < 0"),
        ("half an archive taken for whole", "atomic_write(unpacked) as file", 'unpacked.open("wb") as file'),
    ),
]

IMAGES = [
    *one(
        "images/pixels.py",
        ("range: images go in as [0, 1]", ".float() / 127.5 - 1", ".float() / 255"),
        (
            "range: pictures written without mapping",
            "((images.clamp(-1, 1) + 1) * 127.5)",
            "(images.clamp(-1, 1) * 255)",
        ),
        ("range: values beyond white wrap around", "images.clamp(-1, 1) + 1", "images + 1"),
        ("pixels cut off in place of rounded", ".round().to(torch.uint8)", ".to(torch.uint8)"),
        ("height and width swapped", ".permute(0, 3, 1, 2).float()", ".permute(0, 3, 2, 1).float()"),
        ("device: pixels", "to_device(pixels, device)", "pixels"),
    ),
    *one(
        "images/non_leaking.py",
        ("non-leaking augmentation: images that are not square sheared", "linear * sides.T / sides", "linear"),
        (
            "non-leaking augmentation: label of the rotation left out",
            "            angle.sin(),",
            "            0 * angle,",
        ),
        (
            "non-leaking augmentation: edges black in place of reflected",
            '"bicubic", "reflection"',
            '"bicubic", "zeros"',
        ),
        (
            "non-leaking augmentation: untouched images resampled, too",
            "torch.where(resampled[",
            "torch.where((resampled | True)[",
        ),
        (
            "non-leaking augmentation: axis of no stretch not exact",
            "(applied[5] & (values[8] < 0.5))",
            "(values[8] < 0.5)",
        ),
    ),
    *one(
        "images/augmentation.py",
        ("a whole batch flipped alike", "(horizontal < 0.5)[", "(horizontal[:1] < 0.5)["),
        ("device: numbers of the augmentation", "= to_device(numbers, images.device)", "= numbers"),
        ("device: labels of the augmentation", "to_device(transform.labels, images.device)", "transform.labels"),
        ("device: offsets of the crops", "torch.arange(size, device=uniform.device)", "torch.arange(size)"),
        (
            "device: labels of the images",
            "to_device(torch.from_numpy(self.store.labels[indices.numpy()]), device)",
            "torch.from_numpy(self.store.labels[indices.numpy()])",
        ),
    ),
]

TRAINING = [
    *one(
        "training/trainer.py",
        (
            "uniform noise in training",
            "torch.randn(n, *x0.shape[1:], generator=generator, dev",
            "torch.rand(n, *x0.shape[1:], generator=generator, dev",
        ),
        (
            "seed: noise of training without its generator",
            "torch.randn(n, *x0.shape[1:], generator=generator, dev",
            "torch.randn(n, *x0.shape[1:], dev",
        ),
        ("the same noise in every step", "Stream.DIFFUSION, step, device", "Stream.DIFFUSION, 0, device"),
        ("seed: dropout", ", seeded(self.device, self.seed, Stream.DROPOUT, number):", ":"),
        ("the same dropout in every part of a batch", "Stream.DROPOUT, number)", "Stream.DROPOUT, step)"),
        ("parts of a batch weigh as much as the whole", ".mean() / parts", ".mean()"),
        (
            "the first part of a batch used for every part",
            "else tensor.chunk(count) for",
            "else [tensor.chunk(count)[0]] * count for",
        ),
        ("class dropout missing", "if labels is not None and p.label_dropout:", "if False:"),
        ("device: schedule", "make_schedule(run.diffusion).to(self.device)", 'make_schedule(run.diffusion).to("cpu")'),
        (
            "device: images",
            "from_pixels(pixels, numbers, self.device)",
            "from_pixels(pixels, numbers)",
        ),
        (
            "device: timesteps",
            "rand(n, generator=generator, device=self.device)",
            "rand(n, generator=generator)",
        ),
        (
            "device: noise",
            "randn(n, *x0.shape[1:], generator=generator, device=self.device)",
            "randn(n, *x0.shape[1:], generator=generator)",
        ),
        ("device: labels", "self.images.labels(indices, self.device)", "self.images.labels(indices)"),
        ("device: dropped classes", "to_device(drop < p.label_dropout, self.device)", "(drop < p.label_dropout)"),
        ("device: timesteps of validation", "/ count).to(self.device))", "/ count))"),
        ("device: noise of validation", "self.run.image_shape, self.device)()", "self.run.image_shape)()"),
        ("device: labels of validation", "labels[indices.numpy()]).to(self.device)", "labels[indices.numpy()])"),
        ("every error taken for a lack of memory", "(is_out_of_memory(error) and may_repeat)", "may_repeat"),
        ("gradients of earlier steps kept", "self.optimizer.zero_grad()", "pass"),
        ("gradients not clipped", "self.run.optimizer.max_grad_norm)", 'float("inf"))'),
        ("fp16: gradients clipped while scaled", "self.scaler.unscale_(self.optimizer)", "pass"),
        ("EMA not updated", "update_ema(self.ema, self.network, ema_decay(step * p.batch_size, p))", "pass"),
        ("EMA in training mode", ".eval().requires_grad_(False)", ".requires_grad_(False)"),
        (
            "previews not sampled with the EMA weights",
            "generate_images(self.ema, plan",
            "generate_images(self.network, plan",
        ),
        (
            "non-leaking augmentation: its labels are not given to the network",
            "return x0, timesteps, noise, labels, augmentation",
            "return x0, timesteps, noise, labels, augmentation if augmentation is None else 0 * augmentation",
        ),
        (
            "non-leaking augmentation: its embedding in the exported model",
            "self.ema.augmentation_embedding = None",
            "pass",
        ),
        ("EMA lost when resumed", "self.ema.load_state_dict(checkpoint.ema)", "pass"),
        ("optimizer lost when resumed", "self.optimizer.load_state_dict(checkpoint.optimizer)", "pass"),
        ("distributed: two exchanges per step on a CPU", '25 if self.device.type == "cpu" else None', "None"),
        ("learning rate never set", 'group["lr"] = lr', "pass"),
        (
            "distributed: all compute the same rows of the noise",
            "device=self.device)[device_rows]\n        indices",
            "device=self.device)[:len(device_rows)]\n        indices",
        ),
        ("distributed: all have the same labels", "len(self.images))[rows]", "len(self.images))[:len(rows)]"),
        (
            "activation checkpointing ignored",
            "recompute_activations(run.training.activation_checkpointing)",
            "recompute_activations(False)",
        ),
    ),
    *one(
        "training/loop.py",
        ("no stop if the loss is not finite", "if step < 0:", "if True:"),
        ("a checkpoint with weights that are not finite", "self.check()\n        return Report(", "return Report("),
        ("a later step reported as diverged", "(self.first_bad < 0) & ", ""),
        ("the gradient not checked", "else loss + norm", "else loss"),
        ("sums of the history lost when resumed", "None if resume is None else resume.meter", "None"),
        ("a row of the history lost at a stop", "if state.meter.steps and", "if False and"),
        ("the best checkpoint forgotten when resumed", "self.best = resume.best_validation_loss", "pass"),
        ("the worst checkpoint saved as the best", "due and loss < self.best", "due and loss >= self.best"),
    ),
    *one(
        "training/resume_plan.py",
        ("resume: another run's checkpoint resumed", "elif not longer:", "elif False:"),
        ("resume: beyond the requested length", " and latest.images_seen <= run.num_images", ""),
        ("resume: an earlier learning rate schedule not recorded", "if not longer or run", "if False and run"),
        ("resume: never ignored", ' or resume == "never"', ""),
        (
            "resume: a checkpoint of another network loaded",
            '        if resume == "require":\n            _check_fits(latest, run)',
            '        if resume == "require":\n            pass',
        ),
    ),
    *one(
        "distributed.py",
        (
            "distributed: parts of a batch interleaved",
            ".view(parts, self.size, -1)[:, self.rank]",
            ".view(-1, parts, self.size)[:, :, self.rank]",
        ),
    ),
    *one(
        "training/loader.py",
        ("images on a device that is too small", "SHARE_OF_DEVICE * FREE_MEMORY", "100 * FREE_MEMORY"),
    ),
    *one(
        "training/memory.py",
        ("memory: the EMA is not counted", "(2 + OPTIMIZERS", "(1 + OPTIMIZERS"),
        ("memory: the peak does not grow with the images", "(fixed + part * per_image for", "(fixed + per_image for"),
    ),
    *one(
        "training/memory_check.py",
        ("memory: the process with the most memory decides", "-int(self.world.max(torch.tensor(-left)))", "left"),
        ("memory: parts that leave a rest", "if self.rows % parts == 0 and", "if"),
    ),
    *one(
        "training/optimizers.py",
        ("EMA with the complement of its decay", "for name in averaged], 1 - decay)", "for name in averaged], decay)"),
        ("EMA: half-life not limited early on", "max(min(p.ema_half_life, limit), 1e-8)", "p.ema_half_life"),
        ("EMA: half-life in steps, not in images", "0.5 ** (p.batch_size / max(", "0.5 ** (1 / max("),
        (
            "EMA of buffers too",
            "dict(ema.named_parameters()), dict(network.named_parameters())",
            "ema.state_dict(), network.state_dict()",
        ),
        ("momentum ignored", "{name: getattr(p, name)", "{name: 0 if name == 'momentum' else getattr(p, name)"),
    ),
    *one(
        "hardware.py",
        ("fp16: loss not scaled", 'enabled=self.precision == "fp16"', "enabled=False"),
        ("memory: the page cache of a container counts", ' - _numbers(folder / "memory.stat")[cache]', ""),
    ),
    *one(
        "training/randomness.py",
        (
            "seed: order of the images",
            "randperm(count, generator=generator_for(seed, Stream.ORDER, epoch))",
            "randperm(count)",
        ),
        ("every epoch in the same order", "Stream.ORDER, epoch)", "Stream.ORDER, 0)"),
        ("the same augmentation in every step", "Stream.AUGMENTATION, step)", "Stream.AUGMENTATION, 0)"),
    ),
    *one(
        "pipelines/model_training/nodes.py",
        ("EMA not exported", "from_config(config, checkpoint.ema)", "from_config(config, checkpoint.network)"),
    ),
]

LOGS = [
    *one(
        "run_log.py",
        ("the terminal shows the details of the log file", "record.levelno >= shown.get(name, logging.NOTSET)", "True"),
        (
            "secrets in the tracebacks of the log file",
            "redact_text(super().formatException(ei))",
            "super().formatException(ei)",
        ),
        (
            "a run within a run replaces its log",
            "        if self.target is not None:\n            return\n        try:",
            "        try:",
        ),
    ),
    *one(
        "progress.py",
        ("the last row of a training not logged", "or seen >= self.total or", "or"),
        ("rows beside a progress bar", " and not rich.get_console().is_terminal", ""),
    ),
    *one(
        "training/verdict.py",
        ("noise of the validation loss taken for a trend", " and abs(change) > SIGNIFICANT * error", ""),
        ("the trend of the whole training judged", "np.searchsorted(seen, seen[-1] / 2)", "np.searchsorted(seen, 0)"),
        ("a longer training promised with the cosine schedule", 'if lr_schedule == "constant":', "if True:"),
        ("duration of a training from its first image", 'row["images_seen"] - before)', 'row["images_seen"])'),
    ),
    *one(
        "reporting/overview.py",
        (
            "the best checkpoint taken for another training",
            "if is_of_this_training(model, history):\n        return f",
            "if False:\n        return f",
        ),
    ),
]

SKIPPING = [
    *one(
        "up_to_date.py",
        ("nodes after a changed node skipped", "new = bool(parents & changed or ", "new = bool("),
        ("samples of a model that was trained again kept", "new = damaged or (", "new = ("),
        ("copied files made again", "current.checksum == state.checksum", "current == state"),
        ("the code that samples ignored", 'split(".")[2] not in ANY_CODE', 'split(".")[2] in ()'),
        ("damaged outputs kept", "damaged = not new and states.is_damaged(node)", "damaged = False"),
        ("outputs in memory missing", "maker is not None and maker not in found", "False"),
    ),
]

EVALUATION = [
    *one(
        "metrics/backbone.py",
        ("extractor sees images of any size", "self.convolutions(reduce_images(images))", "self.convolutions(images)"),
    ),
    *one(
        "metrics/fitting.py",
        ("fit resumes with other random numbers", 'torch.set_rng_state(state["random"])', "torch.rand(1)"),
    ),
    *one(
        "metrics/simclr.py",
        ("SimCLR finds the same view in place of the other", ".roll(len(z) // 2)", ".roll(0)"),
        ("views are never flipped", "uniform(-1, 1).sign()", "uniform(0.5, 1).sign()"),
    ),
    *one(
        "metrics/verdict.py",
        ("clouds are real images", "phases = (phases / phases.abs()", "phases = (phases.abs() / phases.abs()"),
        ("KID in place of its way to clouds", " / (clouds_kid[0] - kid.holdout_value)\n", "\n"),
    ),
    *one(
        "metrics/comparison.py",
        ("chance is the rarest class", "labels.bincount().max()", "labels.bincount().min()"),
        ("features that see nothing give scores", 'reliability.measure == "retrieval":', "False:"),
    ),
    *one(
        "metrics/neighbours.py",
        ("noise shows no sign of copying", "if verdict == NO_COPIES and is_far is not False:", "if False:"),
    ),
    *one(
        "metrics/extractor.py",
        (
            "extractor of other images used",
            "_without_length(made_by) == _without_length(self.made_by)",
            "isinstance(made_by, Provenance)",
        ),
    ),
]

MUTANTS = [*FORWARD_PROCESS, *SAMPLING, *NETWORK, *OWN_PICTURES, *IMAGES, *TRAINING, *LOGS, *SKIPPING, *EVALUATION]
