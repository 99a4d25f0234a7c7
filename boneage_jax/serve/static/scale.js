"use strict";
// A reading on a scale of years: the 90 % interval as a band, the bone age as a line, the child's age as a ring.

const MONTHS = 240; // of the scale
const STEP = 36; // between its labels

function place(element, months) {
  element.style.left = `${(100 * Math.min(Math.max(months, 0), MONTHS)) / MONTHS}%`;
  return element;
}

function part(name, text = "") {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  return element;
}

function drawScale(scale, reading, age) {
  scale.append(part("axis"));
  if (reading.low !== null) {
    const low = Math.max(reading.low, 0);
    const band = place(part("interval"), low);
    band.style.width = `${(100 * (Math.min(reading.high, MONTHS) - low)) / MONTHS}%`;
    scale.append(band);
  }
  scale.append(place(part("mark"), reading.months));
  if (age !== null) scale.append(place(part("child-age"), age));
  for (let months = 0; months <= MONTHS; months += STEP) {
    scale.append(place(part("tick", `${months / 12}`), months));
  }
  scale.append(part("unit", "years"));
  scale.setAttribute("role", "img");
  scale.setAttribute("aria-label", scaleText(reading, age));
}

function scaleText(reading, age) {
  const interval = reading.low === null ? "" : `, 90 % interval ${reading.low.toFixed(1)} to ${reading.high.toFixed(1)}`;
  const child = age === null ? "" : `, age ${age.toFixed(1)}`;
  return `Scale from 0 to 20 years: bone age ${reading.months.toFixed(1)} months${interval}${child}`;
}
