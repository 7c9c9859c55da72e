"use strict";
// Draws the poses over the video and the plots below it. All it needs stands in three elements of
// the page: facts as JSON, the poses as packed arrays, and the video itself.

const NONE_16 = -32768, NONE_8 = 255; // what stands for no number
const SURE = 0.5; // keypoints with a lower score are hollow, their limbs thin and dashed
const INK = "#14141a", FILLED = 1; // FILLED: a bit of flags, made up between two sightings
// A frame counts as reached this many seconds early: times are rounded on their way.
const SLACK = 2e-5;
// Where in a frame a seek aims, in seconds after its begin, so that no rounding misses it.
const INTO_FRAME = 0.004;

const byId = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** Return the bytes that stand in an element as base64. */
function bytesOf(id) {
  const text = atob(byId(id).textContent), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** Say in one line what cannot be shown, and why. */
function tell(problem) {
  byId("problem").textContent = problem;
  byId("problem").hidden = false;
}

/** Return the packed arrays by name, as the layout describes them. */
async function unpack(id, layout) {
  const packed = new Blob([bytesOf(id)]).stream();
  const stream = packed.pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const types = { f8: Float64Array, u4: Uint32Array, i4: Int32Array, i2: Int16Array,
    u1: Uint8Array };
  const arrays = {};
  for (const { name, type, offset, length, row, base } of layout) {
    const array = new types[type](buffer, offset, length);
    // Typed arrays wrap around, which undoes the differences modulo 65,536.
    if (row) for (let i = row; i < length; i++) array[i] += array[i - row];
    if (base) for (let i = 0; i < length; i++) array[i] += arrays[base][i];
    arrays[name] = array;
  }
  return arrays;
}

/** Return the facts and arrays together with what is looked up again and again. */
async function load() {
  const facts = JSON.parse(byId("report").textContent);
  const arrays = await unpack("poses", facts.layout);
  const count = arrays.times.length, rows = arrays.frames.length;
  // Rows are sorted by person; these say which belong to a frame: rowsOf[starts[f] .. starts[f+1]].
  const starts = new Uint32Array(count + 1);
  for (const frame of arrays.frames) starts[frame + 1]++;
  for (let f = 0; f < count; f++) starts[f + 1] += starts[f];
  const next = starts.slice(), rowsOf = new Uint32Array(rows);
  for (let row = 0; row < rows; row++) rowsOf[next[arrays.frames[row]]++] = row;
  // The rows of one person stand together: ranges[track] = [first, end].
  const ranges = facts.ids.map(() => [0, 0]);
  for (let row = 0; row < rows; row++) {
    const range = ranges[arrays.tracks[row]];
    if (range && range[1] === 0) range[0] = row;
    if (range) range[1] = row + 1;
  }
  const times = arrays.times;
  const last = count > 1 ? times[count - 1] - times[count - 2] : 0.04;
  return { ...facts, ...arrays, count, starts, rowsOf, ranges,
    end: times[count - 1] + last, tracked: facts.ids.length > 0 && facts.ids[0] !== null,
    keypointCount: facts.keypoints.length };
}

/** Return the frame that shows at a time: the last that begins no later. */
function frameAt(data, time) {
  let low = 0, high = data.count - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (data.times[middle] <= time + SLACK) low = middle; else high = middle - 1;
  }
  return low;
}

/** Return the score of a keypoint of a row, NaN where there is none. */
function scoreOf(data, row, keypoint) {
  const value = data.scores[row * data.keypointCount + keypoint];
  return value === NONE_8 ? NaN : value / data.steps.score;
}

/** Return the mean of the keypoint scores of a row, NaN where there is none. */
function confidenceOf(data, row) {
  return data.confidence[row] === NONE_8 ? NaN : data.confidence[row] / data.steps.score;
}

/** Return a keypoint in pixels of the picture, or null; `xy` is smoothed or raw. */
function pointOf(data, xy, row, keypoint) {
  const at = 2 * (row * data.keypointCount + keypoint);
  if (xy[at] === NONE_16 || xy[at + 1] === NONE_16) return null;
  return [xy[at] * data.steps.pixels, xy[at + 1] * data.steps.pixels];
}

/** Return the box of a row as x1, y1, x2, y2 in pixels of the picture, or null. */
function boxOf(data, row) {
  const box = data.boxes.subarray(4 * row, 4 * row + 4);
  return box.includes(NONE_16) ? null : Array.from(box, (value) => value * data.steps.pixels);
}

/** Return where a person is: the middle of the hips, or else of the box; null for nowhere. */
function placeOf(data, row) {
  const points = data.centre.map((keypoint) => pointOf(data, data.xy, row, keypoint));
  if (points.length && !points.includes(null)) {
    return [0, 1].map((axis) => points.reduce((sum, p) => sum + p[axis], 0) / points.length);
  }
  const box = boxOf(data, row);
  return box && [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
}

/** Return the colour of a row's person: by identity, or by place in the frame without one. */
function colorOf(data, row, place) {
  const colors = data.colors.people, id = data.ids[data.tracks[row]];
  return colors[(id ?? place) % colors.length];
}

// --- clocks: a video, or time alone where no video can be shown -----------------------------------

/** Play the video; `onFrame` hears of each frame when it is on the screen. */
function videoClock(data, video, onFrame, onState) {
  // The copy begins with the first record; the original counts from its own first frame.
  const origin = data.link ? 0 : data.times[0];
  const heard = (time) => onFrame(frameAt(data, time + origin), inside(data, time + origin));
  const watched = "requestVideoFrameCallback" in video;
  if (watched) {
    const watch = (_, { mediaTime }) => {
      // A picture from before a seek that is under way would pull the slider back.
      if (!video.seeking) heard(mediaTime);
      video.requestVideoFrameCallback(watch);
    };
    video.requestVideoFrameCallback(watch);
  } else {
    const watch = () => {
      if (video.paused) return;
      heard(video.currentTime);
      requestAnimationFrame(watch);
    };
    video.addEventListener("play", watch);
    video.addEventListener("timeupdate", () => heard(video.currentTime));
  }
  video.addEventListener("seeked", () => heard(video.currentTime));
  for (const name of ["play", "pause", "ended"]) video.addEventListener(name, onState);
  return {
    get paused() { return video.paused; },
    play: () => video.play().catch(() => {}), // interrupted by a pause: nothing to say
    pause: () => video.pause(),
    seek(frame) {
      const begin = data.times[frame], end = data.times[frame + 1] ?? data.end;
      video.currentTime = begin - origin + Math.min((end - begin) / 2, INTO_FRAME);
    },
    set rate(rate) { video.playbackRate = rate; },
  };
}

/** Tell whether a time lies between the first record and the end of the last. */
const inside = (data, time) => time >= data.times[0] - SLACK && time <= data.end + SLACK;

/** Let time run without a picture. */
function plainClock(data, onFrame, onState) {
  let now = data.times[0], rate = 1, before = null; // before: when the last step was; null: paused
  const step = (moment) => {
    if (before === null) return;
    now += Math.max(0, moment - before) / 1000 * rate;
    before = moment;
    if (now >= data.end) { before = null; now = data.end; onState(); }
    onFrame(frameAt(data, now), true);
    requestAnimationFrame(step);
  };
  return {
    get paused() { return before === null; },
    play() {
      if (now >= data.end) now = data.times[0];
      before = performance.now();
      requestAnimationFrame(step);
      onState();
    },
    pause() { before = null; onState(); },
    seek(frame) { now = data.times[frame]; onFrame(frame, true); },
    set rate(value) { rate = value; },
  };
}

/** Find the video: the copy inside the page, or the original beside it. */
function openVideo(data, video, onFailure) {
  const copy = byId("video-data").textContent.length > 0;
  if (!copy && !data.link) return false;
  video.addEventListener("error", () => onFailure(copy
    ? "This browser cannot play H.264 video: the poses are drawn without the picture."
    : "The original video is not there or cannot be played by this browser:"
      + " the poses are drawn without the picture."));
  video.src = copy
    ? URL.createObjectURL(new Blob([bytesOf("video-data")], { type: "video/mp4" })) : data.link;
  return true;
}

// --- poses over the picture -----------------------------------------------------------------------

/** Draw the people of a frame on the canvas over the video. */
function drawPeople(data, canvas, frame, view) {
  const { pen, width } = fit(canvas);
  const zoom = width / data.size[0];
  // Pixel centres are at whole numbers, so that the picture begins at -0.5.
  const place = ([x, y]) => [(x + 0.5) * zoom, (y + 0.5) * zoom];
  for (let at = data.starts[frame]; at < data.starts[frame + 1]; at++) {
    const row = data.rowsOf[at];
    if (view.only && data.tracks[row] !== view.track) continue;
    const box = boxOf(data, row), color = colorOf(data, row, at - data.starts[frame]);
    const size = box ? Math.max(box[2] - box[0], box[3] - box[1]) * zoom : 100;
    const person = { row, color, size, place };
    const corners = box && [...place(box.slice(0, 2)), ...place(box.slice(2))];
    if (view.boxes && box) drawBox(pen, corners, color, data.tracks[row] === view.track);
    if (view.skeleton && view.source === "both") drawPerson(data, pen, person, data.raw, view, 0.45);
    const xy = view.source === "raw" ? data.raw : data.xy;
    if (view.skeleton) drawPerson(data, pen, person, xy, view, 1);
    if (view.ids && data.tracked && data.tracks[row] >= 0 && box) {
      drawLabel(pen, String(data.ids[data.tracks[row]]), corners, color, width);
    }
  }
}

function drawBox(pen, [x1, y1, x2, y2], color, chosen) {
  for (const [style, width] of [[INK, chosen ? 5 : 3.2], [color, chosen ? 3 : 1.5]]) {
    pen.strokeStyle = style;
    pen.lineWidth = width;
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
}

/** Draw limbs and keypoints; all dark borders below all colours, so that limbs join smoothly. */
function drawPerson(data, pen, { row, color, size, place }, xy, view, opacity) {
  const shown = data.keypoints.map((_, keypoint) => {
    const score = scoreOf(data, row, keypoint), point = pointOf(data, xy, row, keypoint);
    return point && score >= view.threshold ? { at: place(point), sure: score >= SURE } : null;
  });
  const bySides = view.colours === "sides";
  const width = Math.max(1.6, 0.013 * size), radius = Math.max(1.9, 0.013 * size);
  const limbs = data.limbs.map(([a, b], limb) => ({ a: shown[a], b: shown[b], limb }))
    .filter(({ a, b }) => a && b);
  pen.globalAlpha = opacity;
  pen.lineCap = "round";
  for (const border of [true, false]) {
    for (const { a, b, limb } of limbs) {
      const sure = a.sure && b.sure, own = sure ? width : 0.7 * width;
      pen.setLineDash(sure ? [] : [4 * own, 4 * own]);
      pen.lineWidth = own + (border ? Math.max(1.4, 0.44 * own) : 0);
      pen.strokeStyle = border ? INK : bySides ? data.colors.limbs[limb] : color;
      pen.beginPath();
      pen.moveTo(...a.at);
      pen.lineTo(...b.at);
      pen.stroke();
    }
  }
  pen.setLineDash([]);
  shown.forEach((point, keypoint) => {
    if (!point) return;
    const filled = data.flags[row * data.keypointCount + keypoint] & FILLED;
    pen.beginPath();
    pen.arc(...point.at, radius, 0, 2 * Math.PI);
    pen.fillStyle = bySides ? data.colors.keypoints[keypoint] : color;
    if (!point.sure || filled) pen.fillStyle = INK;
    pen.fill();
    pen.lineWidth = Math.max(0.8, 0.3 * radius);
    pen.strokeStyle = point.sure && !filled ? INK
      : bySides ? data.colors.keypoints[keypoint] : color;
    pen.stroke();
  });
  pen.globalAlpha = 1;
}

function drawLabel(pen, text, [x1, y1], color, stageWidth) {
  pen.font = `600 13px ${getComputedStyle(document.body).fontFamily}`;
  const width = pen.measureText(text).width + 10;
  const x = clamp(x1, 0, Math.max(0, stageWidth - width)), y = Math.max(0, y1 - 20);
  pen.fillStyle = INK;
  pen.fillRect(x, y, width, 17);
  pen.fillStyle = color;
  pen.fillRect(x, y + 17, width, 3);
  pen.fillStyle = "#f5f5f5";
  pen.fillText(text, x + 5, y + 13);
}

/** Return the track of the smallest box around a point of the picture, or -1. */
function trackAt(data, frame, x, y) {
  let track = -1, least = Infinity;
  for (const row of data.rowsOf.subarray(data.starts[frame], data.starts[frame + 1])) {
    const box = boxOf(data, row);
    if (!box || x < box[0] || x > box[2] || y < box[1] || y > box[3]) continue;
    const area = (box[2] - box[0]) * (box[3] - box[1]);
    if (area < least) [track, least] = [data.tracks[row], area];
  }
  return track;
}

// --- the page -------------------------------------------------------------------------------------

/** Fill the choices that depend on the video, and hide those it has no use for. */
function prepareControls(data, view) {
  const has = { ids: data.tracked, raw: "raw" in data };
  for (const element of document.querySelectorAll("[data-needs]")) {
    element.hidden = !has[element.dataset.needs];
  }
  byId("scrubber").max = data.count - 1;
  byId("threshold").value = view.threshold;
  const seen = data.ranges.map(([first, end]) => end - first);
  data.ids.forEach((id, track) =>
    byId("person").add(new Option(`id ${id} (frames: ${seen[track].toLocaleString("en")})`, track)));
  byId("person").value = view.track;
  byId("keypoint").add(new Option("all, mean", -1));
  data.keypoints.forEach((name, keypoint) => byId("keypoint").add(new Option(name, keypoint)));
  byId("colours").value = view.colours;
}

/** Describe a frame in words, for the line below the player and for screen readers. */
function describe(data, frame) {
  const people = data.starts[frame + 1] - data.starts[frame];
  return { number: `frame ${data.indices[frame]}`, time: `${data.times[frame].toFixed(3)} s`,
    people: `${people} ${people === 1 ? "person" : "people"}` };
}

async function main() {
  if (!("DecompressionStream" in window)) {
    tell("This browser is too old for the player and the plots (no DecompressionStream).");
    return;
  }
  const data = await load();
  const longest = data.ranges.reduce((best, [first, end], track) =>
    (end - first > data.ranges[best][1] - data.ranges[best][0] ? track : best), 0);
  const view = { track: data.tracked ? longest : data.ids.length - 1, only: false, skeleton: true,
    boxes: false, ids: true, source: "smoothed", threshold: data.threshold,
    colours: data.tracked ? "people" : "sides", keypoint: -1 };
  const video = byId("video"), overlay = byId("overlay"), scrubber = byId("scrubber");
  let frame = 0, drawn = 0, isInside = true, movePaths = () => {}, plots = [], speaking;
  prepareControls(data, view);

  /** Draw the people of the frame that is on the screen. */
  function drawStage() {
    if (isInside) drawPeople(data, overlay, drawn, view); else fit(overlay);
  }
  /** Move everything but the picture to a frame. */
  function moveTo(to) {
    frame = to;
    const words = describe(data, frame);
    scrubber.value = frame;
    scrubber.setAttribute("aria-valuetext", `${words.number}, ${words.time}`);
    byId("position").textContent = `${words.number}, ${words.time}, ${words.people}`;
    overlay.setAttribute("aria-label", `Poses of ${words.people} over the picture`);
    for (const { canvas, lines, unit, decimals } of plots) {
      const figure = canvas.closest("figure");
      figure.querySelector("i").style.left = `${xOf(data, data.times[frame], canvas.clientWidth)}px`;
      if (!lines) continue;
      figure.querySelector(".readout").textContent = lines.map(({ name, values }) =>
        `${name} ${Number.isNaN(values[frame]) ? "—" : values[frame].toFixed(decimals ?? 0) + unit}`)
        .join(", ");
    }
    movePaths(frame);
    clearTimeout(speaking);
    // Only where it rests: a screen reader would never get to the end of a sentence.
    if (clock.paused) speaking = setTimeout(() => {
      byId("said").textContent = `${words.number}, ${words.time}, ${words.people}`;
    }, 600);
  }
  function onFrame(now, within) {
    [drawn, isInside] = [now, within];
    drawStage();
    if (now !== frame || !clock.paused) moveTo(now);
  }
  function onState() {
    byId("play").textContent = clock.paused ? "Play" : "Pause";
  }
  function goTo(to) {
    const target = clamp(to, 0, data.count - 1);
    clock.seek(target);
    moveTo(target);
  }
  function toggle() {
    if (clock.paused) clock.play(); else clock.pause();
  }
  function step(by) {
    clock.pause();
    goTo(frame + by);
  }

  let clock = plainClock(data, onFrame, onState);
  const failed = (problem) => {
    tell(problem);
    video.hidden = true;
    clock = plainClock(data, onFrame, onState);
    clock.rate = Number(byId("speed").value);
    goTo(frame);
    onState();
  };
  if (openVideo(data, video, failed)) clock = videoClock(data, video, onFrame, onState);
  else video.hidden = true;

  /** Draw all plots anew: the person, the width or the colours have changed. */
  function drawPlots() {
    const { track, keypoint } = view;
    if (data.tracked) {
      byId("motion-note").textContent = `Scores and angles are those of id ${data.ids[track]}; its`
        + " path is the thick one.";
    }
    const value = keypoint < 0 ? (row) => confidenceOf(data, row)
      : (row) => scoreOf(data, row, keypoint);
    const scores = track >= 0 ? overFrames(data, track, value) : meanOverPeople(data, value);
    const people = Float32Array.from({ length: data.count },
      (_, f) => data.starts[f + 1] - data.starts[f]);
    const most = Math.max(1, people.reduce((high, count) => Math.max(high, count), 0));
    const middle = most > 2 ? [Math.round(most / 2)] : [];
    plots = [
      { canvas: byId("count"), unit: "", low: 0, high: most, ticks: [0, ...middle, most],
        steps: true, title: "Number of people",
        lines: [{ name: "", values: people, color: "--s0" }] },
      { canvas: byId("confidence"), unit: "", low: 0, high: 1, ticks: [0, 0.5, 1], decimals: 2,
        title: "Keypoint score", lines: [{ name: "", values: scores, color: "--s0" }] },
    ];
    if (track >= 0) for (const plot of anglePlots(data, track)) {
      plots.push({ ...plot, canvas: figureOf(plot.title) });
    }
    for (const plot of plots) {
      drawLines(data, plot.canvas, plot);
      plot.canvas.setAttribute("aria-label", `${plot.title} over time`);
    }
    if (data.tracked) {
      drawLanes(data, byId("lanes"), lanes, track);
      byId("lanes").setAttribute("aria-label", `When each of ${lanes.length} people is seen, and`
        + " how sure their keypoints are; the table of people says it in figures");
      plots.push({ canvas: byId("lanes") });
    }
    byId("paths").setAttribute("aria-label", "Where people went in the picture");
    movePaths = drawPaths(data, byId("paths"), view);
    drawStage();
    moveTo(frame);
  }
  // Lanes of those seen longest, in the order of their first frames.
  const lanes = data.ids.map((_, track) => track)
    .sort((a, b) => data.ranges[b][1] - data.ranges[b][0] - data.ranges[a][1] + data.ranges[a][0])
    .slice(0, MOST_LANES)
    .sort((a, b) => data.frames[data.ranges[a][0]] - data.frames[data.ranges[b][0]] || a - b);

  /** Return the canvas of an angle plot, which is made when it is first needed. */
  function figureOf(title) {
    const id = `angle ${title}`;
    if (!byId(id)) {
      const figure = document.createElement("figure");
      figure.className = "plot";
      figure.innerHTML = '<figcaption><b></b> <span class="readout"></span></figcaption>'
        + '<div class="frame"><canvas role="img"></canvas><i></i></div>';
      figure.querySelector("b").textContent = title;
      figure.querySelector("canvas").id = id;
      byId("angles").append(figure);
    }
    return byId(id);
  }
  function choose(track) {
    if (track < 0 || !data.tracked) return;
    view.track = track;
    byId("person").value = track;
    drawPlots();
  }

  byId("play").addEventListener("click", toggle);
  byId("back").addEventListener("click", () => step(-1));
  byId("on").addEventListener("click", () => step(1));
  scrubber.addEventListener("input", () => goTo(Number(scrubber.value)));
  byId("speed").addEventListener("change", ({ target }) => { clock.rate = Number(target.value); });
  for (const name of ["skeleton", "boxes", "ids"]) {
    byId(`show-${name}`).addEventListener("change", ({ target }) => {
      view[name] = target.checked;
      drawStage();
    });
  }
  byId("show-picture").addEventListener("change", ({ target }) => {
    video.style.visibility = target.checked ? "" : "hidden";
  });
  byId("source").addEventListener("change", ({ target }) => {
    view.source = target.value;
    drawStage();
  });
  byId("colours").addEventListener("change", ({ target }) => {
    view.colours = target.value;
    drawStage();
  });
  const setThreshold = () => {
    view.threshold = Number(byId("threshold").value);
    byId("threshold-value").textContent = view.threshold.toFixed(2);
    drawStage();
  };
  byId("threshold").addEventListener("input", setThreshold);
  byId("person").addEventListener("change", ({ target }) => choose(Number(target.value)));
  byId("only").addEventListener("change", ({ target }) => {
    view.only = target.checked;
    drawPlots();
  });
  byId("keypoint").addEventListener("change", ({ target }) => {
    view.keypoint = Number(target.value);
    drawPlots();
  });
  overlay.addEventListener("click", ({ offsetX, offsetY }) => {
    const zoom = data.size[0] / overlay.clientWidth;
    choose(trackAt(data, drawn, offsetX * zoom - 0.5, offsetY * zoom - 0.5));
  });
  document.addEventListener("click", ({ target, offsetX, offsetY }) => {
    if (!(target instanceof HTMLCanvasElement) || !target.closest(".frame")) return;
    const lane = Math.floor(offsetY / LANE);
    if (target.id === "lanes" && lane < lanes.length) choose(lanes[lane]);
    if (offsetX >= LEFT) goTo(frameAt(data, timeOf(data, offsetX, target.clientWidth)));
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    // Sliders, lists and buttons have keys of their own.
    const own = event.target.closest("input[type=range], select") ? ["Arrow", "Home", "End"]
      : event.target.closest("button, input, summary, a") ? [" "] : [];
    const inSelect = event.target.closest("select");
    const moves = {
      " ": toggle, ",": () => step(-1), ".": () => step(1), Home: () => goTo(0),
      End: () => goTo(data.count - 1),
      ArrowLeft: () => goTo(frameAt(data, data.times[frame] - 1)),
      ArrowRight: () => goTo(frameAt(data, data.times[frame] + 1)),
    };
    const move = moves[event.key];
    if (!move || inSelect || own.some((key) => event.key.startsWith(key))) return;
    event.preventDefault();
    move();
  });

  byId("motion").hidden = data.frames.length === 0;
  byId("motion-note").textContent = data.ids.length
    ? "" : "Joint angles belong to one person: run with --track to see them.";
  byId("paths-note").textContent = (data.centre.length ? "Middle of the hips, or of the box where"
    + " they are not known" : "Middle of the box") + (data.ids.length ? "." : ", a dot for each"
    + " person and frame: without --track nothing joins them.");
  byId("lanes-note").textContent = lanes.length < data.ids.length
    ? `The ${lanes.length} people seen longest of ${data.ids.length}.` : "";
  setThreshold();
  drawPlots();
  new ResizeObserver(drawPlots).observe(byId("stage"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawPlots);
  document.body.dataset.ready = "yes";
}

main();
