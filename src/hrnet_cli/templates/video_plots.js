"use strict";
// The plots of a video's page. `data` is what load() of video_report.js returns; sizes are CSS
// pixels, and every drawing begins by giving its canvas the pixels of the screen.

const LEFT = 64, RIGHT = 10, AXIS = 22, PLOT_HEIGHT = 130; // margins and height of a plot
const LANE = 18, LANE_GUTTER = 3, MOST_LANES = 200;

/** Give a canvas as many pixels as the screen shows of it; return what draws in CSS pixels. */
function fit(canvas, height) {
  const zoom = window.devicePixelRatio || 1, width = canvas.clientWidth;
  if (height) canvas.style.height = `${height}px`;
  height = height || canvas.clientHeight;
  canvas.width = Math.round(width * zoom);
  canvas.height = Math.round(height * zoom);
  const pen = canvas.getContext("2d");
  pen.setTransform(zoom, 0, 0, zoom, 0, 0);
  pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  return { pen, width, height };
}

const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Return where a time lies in a plot, in CSS pixels, and the other way round. */
const xOf = (data, time, width) =>
  LEFT + (time - data.times[0]) / (data.end - data.times[0]) * (width - LEFT - RIGHT);
const timeOf = (data, x, width) =>
  data.times[0] + clamp((x - LEFT) / (width - LEFT - RIGHT), 0, 1) * (data.end - data.times[0]);

/** Return a time such as 1:05 or 2.25 s, with as many decimals as a step needs. */
function clockText(seconds, step) {
  if (step < 60 && seconds < 60) return `${seconds.toFixed(step < 0.1 ? 2 : step < 1 ? 1 : 0)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function drawTimeAxis(data, pen, width, height) {
  const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800,
    3600, 7200, 14400];
  const wanted = (data.end - data.times[0]) * 80 / Math.max(width - LEFT - RIGHT, 80);
  const step = steps.find((one) => one >= wanted) ?? steps[steps.length - 1];
  pen.fillStyle = themed("--quiet");
  pen.strokeStyle = themed("--line");
  pen.lineWidth = 1;
  pen.textAlign = "center";
  for (let tick = Math.ceil(data.times[0] / step - 1e-9); tick * step <= data.end; tick++) {
    const x = xOf(data, tick * step, width);
    pen.beginPath();
    pen.moveTo(x, 0);
    pen.lineTo(x, height - AXIS + 4);
    pen.stroke();
    const text = clockText(tick * step, step);
    const half = pen.measureText(text).width / 2;
    pen.fillText(text, clamp(x, half, width - half), height - 5);
  }
}

/** Draw a lane for each person, coloured and as high as the mean keypoint score. */
function drawLanes(data, canvas, tracks, chosen) {
  const { pen, width, height } = fit(canvas, tracks.length * LANE + AXIS);
  drawTimeAxis(data, pen, width, height);
  const columns = Math.max(1, Math.round(width - LEFT - RIGHT));
  const [sure, unsure] = [themed("--s0"), themed("--s1")];
  const shades = Array.from({ length: 21 },
    (_, shade) => `color-mix(in oklab, ${sure} ${shade * 5}%, ${unsure})`);
  tracks.forEach((track, lane) => {
    const sums = new Float32Array(columns + 1), counts = new Uint32Array(columns + 1);
    for (let row = data.ranges[track][0]; row < data.ranges[track][1]; row++) {
      const frame = data.frames[row], value = confidenceOf(data, row) || 0;
      const to = xOf(data, data.times[frame + 1] ?? data.end, width) - LEFT;
      // At least one column; neighbours share none, so that gaps of a frame can be seen.
      const from = Math.round(xOf(data, data.times[frame], width) - LEFT);
      for (let x = from; x < Math.max(from + 1, Math.round(to)); x++) { sums[x] += value; counts[x]++; }
    }
    pen.textAlign = "right";
    pen.fillStyle = themed(track === chosen ? "--ink" : "--quiet");
    pen.font = pen.font.replace(/^(600 )?/, track === chosen ? "600 " : "");
    pen.fillText(`id ${data.ids[track]}`, LEFT - 8, lane * LANE + 13);
    for (let x = 0; x < columns; x++) {
      if (!counts[x]) continue;
      const mean = clamp(sums[x] / counts[x], 0, 1), bar = 3 + mean * (LANE - LANE_GUTTER - 3);
      pen.fillStyle = shades[Math.round(mean * 20)];
      pen.fillRect(LEFT + x, (lane + 1) * LANE - LANE_GUTTER - bar, 1.5, bar);
    }
  });
}

/** Draw lines over the frames; a value that is not a number breaks its line. */
function drawLines(data, canvas, { lines, low, high, ticks, unit, steps }) {
  const { pen, width, height } = fit(canvas, PLOT_HEIGHT);
  const floor = height - AXIS, y = (value) => floor - (value - low) / (high - low) * (floor - 8);
  drawTimeAxis(data, pen, width, height);
  pen.textAlign = "right";
  for (const tick of ticks) {
    pen.strokeStyle = themed("--line");
    pen.beginPath();
    pen.moveTo(LEFT, y(tick));
    pen.lineTo(width - RIGHT, y(tick));
    pen.stroke();
    pen.fillText(`${tick}${unit}`, LEFT - 8, y(tick) + 4);
  }
  for (const { values, color, dash } of lines) {
    pen.strokeStyle = themed(color);
    pen.lineWidth = 1.75;
    pen.setLineDash(dash ? [6, 3] : []);
    pen.beginPath();
    for (let frame = 0, open = false; frame < data.count; frame++) {
      const value = values[frame];
      if (Number.isNaN(value)) { open = false; continue; }
      const x = xOf(data, data.times[frame], width), top = y(clamp(value, low, high));
      if (open) pen.lineTo(x, top); else pen.moveTo(x, top);
      // A value alone between two gaps is a short dash; steps last as long as their frame.
      if (steps) pen.lineTo(xOf(data, data.times[frame + 1] ?? data.end, width), top);
      else if (!open && !(values[frame + 1] === values[frame + 1])) pen.lineTo(x + 2, top);
      open = true;
    }
    pen.stroke();
  }
  pen.setLineDash([]);
}

/** Return a value for each frame of what a function says of one person's rows; NaN elsewhere. */
function overFrames(data, track, valueOf) {
  const values = new Float32Array(data.count).fill(NaN);
  const [first, end] = data.ranges[track] ?? [0, 0];
  for (let row = first; row < end; row++) values[data.frames[row]] = valueOf(row);
  return values;
}

/** Return the mean over the people of each frame, for videos without identities. */
function meanOverPeople(data, valueOf) {
  return Float32Array.from({ length: data.count }, (_, frame) => {
    const known = Array.from(data.rowsOf.subarray(data.starts[frame], data.starts[frame + 1]),
      valueOf).filter((value) => !Number.isNaN(value));
    return known.reduce((sum, value) => sum + value, 0) / known.length;
  });
}

/** Return the plots of joint angles: left and right of a joint in one. */
function anglePlots(data, track) {
  const groups = new Map();
  data.angles.forEach((name, angle) => {
    const joint = name.replace(/^(left|right) /, ""), right = name.startsWith("right ");
    const values = overFrames(data, track, (row) => {
      const value = data.degrees[row * data.angles.length + angle];
      return value === NONE_16 ? NaN : value / data.steps.degrees;
    });
    const line = { name: right ? "right" : name.startsWith("left ") ? "left" : "", values, color: right ? "--s1" : "--s0", dash: right };
    groups.set(joint, [...(groups.get(joint) ?? []), line]);
  });
  return [...groups].map(([joint, lines]) => {
    const known = lines.flatMap(({ values }) => Array.from(values).filter((v) => !Number.isNaN(v)));
    const [least, most] = known.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)],
      [0, 90]);
    const low = 45 * Math.floor(least / 45), high = 45 * Math.ceil(most / 45);
    return { title: joint[0].toUpperCase() + joint.slice(1), lines, unit: "°", low, high,
      ticks: low < 0 ? [low, 0, high] : [low, (low + high) / 2, high] };
  });
}

/** Draw where people went, in the frame of the picture; return what adds where they are now. */
function drawPaths(data, canvas, view) {
  const { pen, width, height } = fit(canvas, Math.round(canvas.clientWidth * data.size[1]
    / data.size[0]));
  if (!width || !height) return () => {}; // not on the screen
  const zoom = width / data.size[0];
  const place = (point) => point && [(point[0] + 0.5) * zoom, (point[1] + 0.5) * zoom];
  data.ranges.forEach(([first, end], track) => {
    if (view.only && track !== view.track) return;
    const chosen = track === view.track || !data.tracked;
    pen.beginPath();
    for (let row = first, before = -2; row < end; before = data.frames[row], row++) {
      const point = place(placeOf(data, row));
      if (!point) continue;
      if (data.frames[row] === before + 1) pen.lineTo(...point); else pen.moveTo(...point);
    }
    // A dark line below: the yellow of the palette is hard to see on white.
    pen.lineJoin = pen.lineCap = "round";
    for (const [style, wide] of [[INK, 1.6], [colorOf(data, first, 0), 0]]) {
      pen.globalAlpha = chosen ? 1 : 0.55;
      pen.strokeStyle = style;
      pen.lineWidth = (chosen ? 3 : 1.8) + wide;
      pen.stroke();
    }
  });
  pen.globalAlpha = 0.5;
  pen.fillStyle = themed("--s0");
  for (let row = 0; row < data.frames.length; row++) {
    const point = data.tracks[row] < 0 && !view.only && place(placeOf(data, row));
    if (point) pen.fillRect(point[0] - 1, point[1] - 1, 2, 2);
  }
  pen.globalAlpha = 1;
  // Kept without the dots, so that a step in time does not draw all paths anew.
  const kept = document.createElement("canvas");
  [kept.width, kept.height] = [canvas.width, canvas.height];
  kept.getContext("2d").drawImage(canvas, 0, 0);
  return (frame) => {
    pen.clearRect(0, 0, width, height);
    pen.drawImage(kept, 0, 0, width, height);
    for (let at = data.starts[frame]; at < data.starts[frame + 1]; at++) {
      const row = data.rowsOf[at], point = place(placeOf(data, row));
      if (!point || (view.only && data.tracks[row] !== view.track)) continue;
      pen.beginPath();
      pen.arc(...point, 6, 0, 2 * Math.PI);
      pen.fillStyle = colorOf(data, row, at - data.starts[frame]);
      pen.fill();
      pen.lineWidth = 2;
      pen.strokeStyle = INK;
      pen.stroke();
    }
  };
}
