// Two models' answers to one image, one over the other, with a line between them that can be dragged.
// Maps are deflated ids, of classes or, where they have a table of colours, of objects from 1. Everything that is seen of
// them is painted here, nothing is read back from a canvas.
"use strict";
(async () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const stage = $("stage"), handle = $("handle"), told = $("told");
  const isMaps = Boolean(data.images[0].maps);
  const hasTruth = isMaps && data.images.some((image) => image.truth !== null);
  const views = isMaps ? ["overlay", "labels", ...(hasTruth ? ["errors"] : [])] : [];
  const TRUTH = data.labels.length;
  const choices = [...data.labels, ...(hasTruth ? ["truth"] : [])];
  const state = { image: 0, a: Math.min(1, data.labels.length - 1), b: 0, at: 50, view: views[0] };
  const unpacked = new Map(), photos = new Map();
  let painting = 0;

  const unpack = async (text) => {
    if (!text) return null;
    if (!unpacked.has(text)) {
      const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      const raw = await new Response(stream).arrayBuffer();
      unpacked.set(text, data.wide ? new Uint16Array(raw) : new Uint8Array(raw));
    }
    return unpacked.get(text);
  };
  const photo = (image) => {
    if (!photos.has(image)) {
      const picture = new Image();
      picture.src = image.photo;
      photos.set(image, picture.decode().then(() => picture));
    }
    return photos.get(image);
  };
  const mapOf = (image, side) => (side === TRUTH ? image.truth : image.maps[side]);
  const idsOf = (image, side) => unpack(mapOf(image, side)?.ids);

  // Where the object at i ends, of those that are asked for.
  const ends = (image, ids, i, ofThese) => {
    const x = i % image.width, id = ids[i];
    return ofThese.has(id) && (x === 0 || x === image.width - 1 || ids[i - 1] !== id || ids[i + 1] !== id
      || ids[i - image.width] !== id || ids[i + image.width] !== id);
  };
  // A line where one of these segments meets another one that is none of those.
  const meets = (image, ids, i, ofThese, those) => [i % image.width ? i - 1 : i, i < image.width ? i : i - image.width]
    .some((j) => ids[j] !== ids[i] && (ofThese.has(ids[i]) || ofThese.has(ids[j])) && !those.has(ids[i]) && !those.has(ids[j]));
  // A line between two objects that touch.
  const isSeam = (image, ids, i) => {
    const left = i % image.width ? ids[i - 1] : ids[i], above = i < image.width ? ids[i] : ids[i - image.width];
    return Boolean(ids[i]) && ((left && left !== ids[i]) || (above && above !== ids[i]));
  };
  // What the truth's objects and those of a model are to each other, by number.
  const matched = (map) => ({
    trueOf: new Map(map.found.map(([own, said]) => [said, own])),
    isTrue: new Set(map.found.map(([own]) => own)), isFound: new Set(map.found.map(([, said]) => said)),
    missed: new Set(map.missed), isFalse: new Set(map.false),
  });
  const objectErrors = (image, map, ids, truth, set) => {
    const { trueOf, isTrue, isFound, missed, isFalse } = matched(map), [found, lost, invented, other] = data.paints;
    for (let i = 0; i < ids.length; i++) {
      const own = truth[i], said = ids[i], isLost = missed.has(own), isInvented = isFalse.has(said);
      if ((data.whole ? meets : ends)(image, ids, i, isFound, isFalse)) set(i, found, 255);
      else if (!data.whole && ends(image, truth, i, missed)) set(i, lost, 255);
      else if (!data.whole && ends(image, ids, i, isFalse)) set(i, invented, 255);
      else if (isLost || isInvented) {
        const stripe = Math.floor((i % image.width + Math.floor(i / image.width)) / 4) % 2 === 0;
        set(i, isLost && !(isInvented && stripe) ? lost : invented, data.whole ? 190 : 130);
      } else if (isTrue.has(own) && trueOf.get(said) !== own && (data.whole || said)) set(i, other, 190);
    }
  };
  // What lies over the photograph: the colours of classes or objects, or what is wrong.
  const painted = (image, map, ids, truth, view) => {
    const pixels = new ImageData(image.width, image.height), out = pixels.data;
    const set = (i, colour, alpha) => { out.set(colour, 4 * i); out[4 * i + 3] = alpha; };
    const alpha = view === "labels" ? 255 : 158, all = map.colours && new Set(map.colours.map((_, n) => n + 1));
    if (view === "errors") {
      if (map.found && truth) objectErrors(image, map, ids, truth, set);
      for (let i = 0; !map.colours && truth && i < ids.length; i++) {
        if (truth[i] < data.classes.length && truth[i] !== ids[i]) set(i, data.paints[0], 235);
      }
      return pixels;
    }
    for (let i = 0; i < ids.length; i++) {
      if (!map.colours) {
        if (ids[i] < data.classes.length) set(i, data.classes[ids[i]].colour, alpha);
      } else if ((view === "labels" || data.whole) && isSeam(image, ids, i)) set(i, [255, 255, 255], 255);
      else if (ids[i]) set(i, map.colours[ids[i] - 1], !data.whole && ends(image, ids, i, all) ? 255 : alpha);
    }
    return pixels;
  };
  const canvasOf = async (image, side) => {
    const [ids, truth] = await Promise.all([idsOf(image, side), idsOf(image, TRUTH)]);
    const canvas = document.createElement("canvas");
    canvas.width = image.width;
    canvas.height = image.height;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${choices[side]} of ${image.name}`);
    if (Math.max(image.width, image.height) < 300) canvas.className = "coarse";
    const pen = canvas.getContext("2d");
    if (state.view !== "labels") pen.drawImage(await photo(image), 0, 0, image.width, image.height);
    if (state.view === "errors") {
      pen.fillStyle = "rgb(235 235 232 / .62)";
      pen.fillRect(0, 0, image.width, image.height);
    }
    if (ids) {
      const sheet = document.createElement("canvas");
      sheet.width = image.width;
      sheet.height = image.height;
      sheet.getContext("2d").putImageData(painted(image, mapOf(image, side), ids, truth, state.view), 0, 0);
      pen.drawImage(sheet, 0, 0);
    }
    return canvas;
  };
  const pictureOf = async (image, side) => {
    const picture = new Image();
    picture.alt = `${choices[side]} of ${image.name}`;
    picture.draggable = false;
    picture.src = image.pictures[side];
    await picture.decode();
    return picture;
  };

  const line = (at) => {
    state.at = Math.min(100, Math.max(0, at));
    stage.style.setProperty("--at", `${state.at}%`);
    handle.setAttribute("aria-valuenow", Math.round(state.at));
    handle.setAttribute("aria-valuetext", `${Math.round(state.at)} percent ${choices[state.a]}`);
  };
  const score = (image, side) => {
    const value = image.scores[side];
    return side === TRUTH || value === undefined || value === null ? "" : ` ${value.toFixed(3)}`;
  };
  const counted = (image, side) => {
    const map = isMaps && state.view === "errors" && side !== TRUTH ? image.maps[side] : {};
    return map.found ? `: ${map.found.length} found, ${map.missed.length} missed, ${map.false.length} false` : "";
  };
  const show = async () => {
    const mine = ++painting, image = data.images[state.image], make = isMaps ? canvasOf : pictureOf;
    const [a, b] = await Promise.all([make(image, state.a), make(image, state.b)]);
    if (mine !== painting) return;
    $("layer-a").replaceChildren(a);
    $("layer-b").replaceChildren(b);
    stage.style.aspectRatio = `${image.width} / ${image.height}`;
    stage.style.width = `min(100%, calc(66vh * ${image.width / image.height}))`;
    $("tag-a").textContent = `A ${choices[state.a]}${score(image, state.a)}${counted(image, state.a)}`;
    $("tag-b").textContent = `B ${choices[state.b]}${score(image, state.b)}${counted(image, state.b)}`;
    $("side-a").value = state.a;
    $("side-b").value = state.b;
    $("count").textContent = `${state.image + 1} / ${data.images.length}`;
    told.textContent = image.name;
    for (const button of $("views").children) button.setAttribute("aria-pressed", button.value === state.view);
    [...$("strip").children].forEach((button, at) => {
      button.setAttribute("aria-current", at === state.image);
      if (at === state.image) $("strip").scrollLeft = button.offsetLeft - $("strip").clientWidth / 2;
    });
    line(state.at);
    stage.dataset.shown = `${state.image} ${state.a} ${state.b} ${state.view || ""}`;
  };
  const step = (key, by, length) => {
    state[key] = (state[key] + by + length) % length;
    return show();
  };
  const stepView = () => {
    if (!views.length) return undefined;
    state.view = views[(views.indexOf(state.view) + 1) % views.length];
    return show();
  };

  const tell = async (event) => {
    const image = data.images[state.image], box = stage.getBoundingClientRect();
    if (!isMaps) return;
    const x = Math.floor((event.clientX - box.left) / box.width * image.width);
    const y = Math.floor((event.clientY - box.top) / box.height * image.height);
    if (x < 0 || y < 0 || x >= image.width || y >= image.height) return;
    const [a, b, truth] = await Promise.all([idsOf(image, state.a), idsOf(image, state.b), idsOf(image, TRUTH)]);
    const named = (ids, map) => {
      if (!ids) return "–";
      const id = ids[y * image.width + x], nothing = { name: map.colours && !data.whole ? "nothing" : "not labelled" };
      const isFalse = map.false && map.false.includes(id) ? " (false)" : "";
      return (data.classes[map.colours ? map.classes[id - 1] : id] || nothing).name + isFalse;
    };
    const part = (what, value) => {
      const bold = document.createElement("b");
      bold.textContent = value;
      return [`${what} `, bold, "   "];
    };
    told.replaceChildren(
      ...part("A", named(a, mapOf(image, state.a))), ...part("B", named(b, mapOf(image, state.b))),
      ...(truth ? part("truth", named(truth, image.truth)) : []),
    );
  };
  const drag = (event) => {
    const box = stage.getBoundingClientRect();
    line((event.clientX - box.left) / box.width * 100);
  };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    handle.focus({ preventScroll: true });
    drag(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) drag(event);
    tell(event);
  });
  stage.addEventListener("pointerleave", () => { told.textContent = data.images[state.image].name; });

  const keys = {
    ArrowLeft: () => line(state.at - 2), ArrowRight: () => line(state.at + 2),
    Home: () => line(0), End: () => line(100),
    ArrowUp: () => step("image", -1, data.images.length), ArrowDown: () => step("image", 1, data.images.length),
    a: () => step("a", 1, choices.length), A: () => step("a", -1, choices.length),
    b: () => step("b", 1, choices.length), B: () => step("b", -1, choices.length),
    v: stepView,
  };
  document.addEventListener("keydown", (event) => {
    const isElsewhere = event.target.closest("select, input, .scroll, .strip");
    const box = stage.getBoundingClientRect(), isSeen = box.bottom > 0 && box.top < innerHeight;
    if (isElsewhere || !isSeen || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });

  for (const [id, key] of [["side-a", "a"], ["side-b", "b"]]) {
    $(id).append(...choices.map((name, at) => new Option(name, at)));
    $(id).addEventListener("change", (event) => { state[key] = Number(event.target.value); show(); });
  }
  $("previous").addEventListener("click", keys.ArrowUp);
  $("next").addEventListener("click", keys.ArrowDown);
  for (const view of views) {
    const button = Object.assign(document.createElement("button"), { type: "button", value: view, textContent: view });
    button.addEventListener("click", () => { state.view = view; show(); });
    $("views").append(button);
  }
  data.images.forEach((image, at) => {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.setAttribute("aria-label", `image ${image.name}`);
    const inside = image.photo ? Object.assign(new Image(), { src: image.photo, alt: "" }) : document.createElement("span");
    if (!image.photo) inside.textContent = image.name;
    button.append(inside);
    button.addEventListener("click", () => { state.image = at; show(); });
    $("strip").append(button);
  });
  await show();
  document.documentElement.dataset.ready = "yes";
})();
