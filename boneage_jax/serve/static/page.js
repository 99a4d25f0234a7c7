"use strict";
// The page of `boneage serve`: collects radiographs, sends one after the other, shows the answers.

const byId = (id) => document.getElementById(id);
const copyOf = (id) => byId(id).content.firstElementChild.cloneNode(true);
const chosen = []; // { file, row }
let answers = []; // as they are saved
let reading = false;

function add(files) {
  for (const file of files) {
    const row = copyOf("child");
    const entry = { file, row };
    row.querySelector(".name").textContent = file.name;
    row.querySelector(".unset").textContent = /\.(dcm|dicom|ima)$/i.test(file.name) ? "from the file" : "choose";
    for (const [name, label] of [["sex", "Sex,"], ["age", "Age in years,"], ["remove", "Remove"]]) {
      row.querySelector(`.${name}`).setAttribute("aria-label", `${label} ${file.name}`);
    }
    row.querySelector(".remove").addEventListener("click", () => {
      chosen.splice(chosen.indexOf(entry), 1);
      row.remove();
      updateRead();
      byId("files").focus();
    });
    chosen.push(entry);
    byId("chosen").append(row);
  }
  updateRead();
}

function updateRead() {
  byId("read").disabled = reading || chosen.length === 0;
}

async function send({ file, row }) {
  const form = new FormData();
  form.append("image", file, "image"); // the name stays in the browser
  for (const name of ["sex", "age"]) {
    const value = row.querySelector(`.${name}`).value;
    if (value !== "") form.append(name, value);
  }
  const headers = byId("token") ? { Authorization: `Bearer ${byId("token").value}` } : {};
  const query = byId("heatmap")?.checked ? "?heatmap=1" : "";
  try {
    const response = await fetch(`predict${query}`, { method: "POST", body: form, headers });
    return await response.json();
  } catch {
    return { error: "The service does not answer." };
  }
}

async function readAll(event) {
  event.preventDefault();
  byId("results").replaceChildren();
  reading = true;
  updateRead();
  answers = [];
  const all = [...chosen]; // rows may be added and removed meanwhile
  for (const [place, entry] of all.entries()) {
    if (!chosen.includes(entry)) continue;
    byId("status").textContent = `Reading ${place + 1} of ${all.length} …`;
    const answer = await send(entry);
    show(entry.file.name, answer);
    answers.push({ ...answer, file: entry.file.name });
  }
  const failed = answers.filter((one) => one.error).length;
  byId("status").textContent = `${answers.length - failed} of ${answers.length} read`;
  byId("save").disabled = false;
  reading = false;
  updateRead();
}

function show(name, answer) {
  const article = copyOf("result");
  article.querySelector("h2").textContent = name;
  const readings = answer.by_sex ? Object.entries(answer.by_sex) : [[answer.sex, answer]];
  if (!answer.error) {
    for (const [sex, reading] of readings) article.querySelector(".readings").append(readingOf(sex, reading, answer));
  }
  const messages = article.querySelector(".messages");
  const groups = { error: answer.error ? [answer.error] : [], warning: answer.error ? [] : answer.warnings, note: answer.notes };
  for (const [kind, sentences] of Object.entries(groups)) {
    for (const sentence of sentences || []) {
      const item = document.createElement("li");
      item.className = kind;
      item.textContent = kind === "note" ? `Note: ${sentence}` : sentence;
      messages.append(item);
    }
  }
  if (answer.heatmap) showHeatmap(article, answer.heatmap);
  if (answer.provenance) article.querySelector(".provenance").textContent = provenanceOf(answer.provenance);
  byId("results").append(article);
}

function readingOf(sex, reading, answer) {
  const shown = copyOf("reading");
  shown.querySelector("strong").textContent = reading.years_months;
  const word = sex === "F" ? "girl" : "boy";
  const interval = reading.low === null ? "" : `; 90 % interval ${reading.low.toFixed(1)} to ${reading.high.toFixed(1)} months`;
  shown.querySelector(".age span").textContent = `${reading.months.toFixed(1)} months, read as a ${word}'s hand${interval}`;
  drawScale(shown.querySelector(".scale"), reading, answer.age);
  if (reading.difference !== null) {
    const score = reading.sd_score === null ? "" : `, SD score ${signed(reading.sd_score, 2)}`;
    const years = (answer.age / 12).toFixed(1);
    shown.querySelector(".compared").textContent =
      `Age ${years} years (ring): bone age ${signed(reading.difference, 1)} months${score}`;
  }
  return shown;
}

function showHeatmap(article, base64) {
  const bytes = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
  const url = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
  const figure = article.querySelector("figure");
  for (const image of figure.querySelectorAll("img")) image.src = url;
  const slider = figure.querySelector("input");
  slider.addEventListener("input", () => {
    figure.querySelector(".over").style.clipPath = `inset(0 0 0 ${slider.value}%)`;
  });
  article.classList.add("pictured");
  figure.hidden = false;
}

function signed(value, digits) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
}

function provenanceOf(one) {
  const sum = one.weights_sha256 ? `, SHA-256 ${one.weights_sha256}` : "";
  return `boneage_jax ${one.version}, preprocessing ${one.preprocessing}, weights ${one.weights}${sum}, ${one.time}. ${one.notice}`;
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(answers, null, 2)], { type: "application/json" }));
  link.download = "bone-age.json";
  link.click();
  URL.revokeObjectURL(link.href);
}

const drop = byId("drop");
for (const kind of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") add(event.dataTransfer.files);
  });
}
byId("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});
byId("form").addEventListener("submit", readAll);
byId("save").addEventListener("click", save);
