// Draws what export/view.py wrote into #scene: points, most confident first, and cameras to stand in.
// Text of files reaches the page through textContent alone; the page's policy allows no other script and no network.
"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const data = JSON.parse(at("scene").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  at("facts").textContent = data.facts;

  // Colours are shown as they are stored, without any conversion of colour spaces.
  THREE.ColorManagement.enabled = false;
  let renderer;
  try {
    renderer = new THREE.WebGLRenderer({ canvas: at("canvas"), antialias: true, alpha: true });
  } catch (error) {
    at("canvas").hidden = true;
    at("failed").hidden = false;
    at("failed").textContent = "This browser draws no 3D here: WebGL is switched off or missing.";
    return;
  }
  renderer.outputColorSpace = THREE.LinearSRGBColorSpace;
  renderer.setPixelRatio(window.devicePixelRatio);

  const scene = new THREE.Scene();
  const eye = new THREE.PerspectiveCamera(50, 1, data.extent / 2000, data.extent * 200);
  const controls = new THREE.OrbitControls(eye, at("canvas"));
  controls.listenToKeyEvents(at("canvas"));

  // Points: the order is that of confidence, so that the slider only says how many are drawn.
  const cloud = new THREE.BufferGeometry();
  cloud.setAttribute("position", new THREE.BufferAttribute(new Float32Array(bytes(data.positions).buffer), 3));
  cloud.setAttribute("color", new THREE.BufferAttribute(bytes(data.colours), 3, true));
  const dots = new THREE.PointsMaterial({ vertexColors: true });
  dots.onBeforeCompile = (shader) => { // round ones
    shader.fragmentShader = shader.fragmentShader.replace("#include <logdepthbuf_fragment>",
      "if (length(gl_PointCoord - 0.5) > 0.5) discard;\n#include <logdepthbuf_fragment>");
  };
  const points = new THREE.Points(cloud, dots);
  points.frustumCulled = false;
  scene.add(points);

  // Cameras: in their own axes x is right, y down, z forward; corners lie at z = 1.
  const cameras = data.cameras.map((camera, index) => {
    const body = new THREE.Group();
    body.matrixAutoUpdate = false;
    const pose = new THREE.Matrix4().set(...camera.pose);
    const corner = (k) => camera.corners.slice(3 * k, 3 * k + 3);
    const edges = [0, 1, 2, 3].flatMap((k) => [0, 0, 0, ...corner(k), ...corner(k), ...corner((k + 1) % 4)]);
    const lines = new THREE.BufferGeometry();
    lines.setAttribute("position", new THREE.BufferAttribute(new Float32Array(edges), 3));
    const colour = (camera.colour[0] << 16) | (camera.colour[1] << 8) | camera.colour[2];
    body.add(new THREE.LineSegments(lines, new THREE.LineBasicMaterial({ color: colour })));
    const sheet = new THREE.BufferGeometry();
    const order = [0, 3, 2, 0, 2, 1];
    const uv = [[0, 1], [1, 1], [1, 0], [0, 0]];
    sheet.setAttribute("position", new THREE.BufferAttribute(new Float32Array(order.flatMap(corner)), 3));
    sheet.setAttribute("uv", new THREE.BufferAttribute(new Float32Array(order.flatMap((k) => uv[k])), 2));
    const texture = new THREE.Texture();
    const picture = new Image();
    picture.onload = () => { texture.image = picture; texture.needsUpdate = true; draw(); };
    picture.src = camera.image;
    const plate = new THREE.Mesh(sheet, new THREE.MeshBasicMaterial({ map: texture, side: THREE.DoubleSide }));
    plate.userData.index = index;
    body.add(plate);
    scene.add(body);
    return { ...camera, body, pose, plate };
  });

  const centre = (camera) => new THREE.Vector3().setFromMatrixPosition(camera.pose);
  let chosen = -1;
  let waiting = false;
  const draw = () => { // once a frame, and only when something changed
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; renderer.render(scene, eye); });
  };

  function refresh() {
    const hidden = Number(at("hidden-share").value);
    const count = Math.round(data.count * (1 - hidden / 100));
    cloud.setDrawRange(0, count);
    const least = data.count ? `, confidence ≥ ${data.thresholds[hidden].toFixed(2)}` : "";
    at("shown").textContent = `best ${100 - hidden} %: ${count.toLocaleString("en")} points${least}`;
    dots.size = 2 * data.spacing * 2 ** Number(at("size").value);
    const size = data.camera_size * 2 ** Number(at("camera-size").value);
    cameras.forEach((camera) => {
      camera.body.matrix.copy(camera.pose).scale(new THREE.Vector3(size, size, size));
      camera.body.matrixWorldNeedsUpdate = true;
      camera.plate.visible = at("pictures").checked;
    });
    show();
  }

  // Cameras would hide what is to be seen from the one that one stands in; they are back as soon as one leaves it.
  function show() {
    const inside = chosen >= 0 && eye.position.distanceTo(centre(cameras[chosen])) < 0.01 * data.extent;
    for (const camera of cameras) camera.body.visible = at("cameras").checked && !inside;
    draw();
  }

  // The chosen camera's own view: where it stands, the way it looks, as much as its image covers.
  function stand(index) {
    chosen = index;
    const camera = cameras[index];
    const here = centre(camera);
    const axis = (k) => new THREE.Vector3().setFromMatrixColumn(camera.pose, k).normalize();
    eye.position.copy(here);
    eye.quaternion.setFromRotationMatrix(new THREE.Matrix4().makeBasis(axis(0), axis(1).negate(), axis(2).negate()));
    controls.target.copy(here).addScaledVector(axis(2), camera.distance);
    fit();
    at("chosen").hidden = false;
    at("photo").src = camera.image;
    at("photo").alt = camera.name;
    at("name").textContent = camera.name;
    buttons.forEach((button, k) => button.setAttribute("aria-pressed", String(k === index)));
    buttons[index].scrollIntoView({ block: "nearest" });
    refresh();
  }

  function fit() {
    const aspect = eye.aspect;
    let half = Math.tan(Math.PI / 7.2); // 50 degrees
    if (chosen >= 0) {
      const corners = cameras[chosen].corners;
      const reach = (axis) => Math.max(...[0, 1, 2, 3].map((k) => Math.abs(corners[3 * k + axis])));
      half = Math.max(reach(1), reach(0) / aspect) * 1.02;
    }
    eye.fov = 2 * Math.atan(half) * 180 / Math.PI;
    eye.updateProjectionMatrix();
  }

  function whole() {
    chosen = -1;
    at("chosen").hidden = true;
    buttons.forEach((button) => button.setAttribute("aria-pressed", "false"));
    eye.position.set(...data.start);
    controls.target.set(...data.target);
    fit();
    controls.update();
    refresh();
  }

  const buttons = cameras.map((camera, index) => {
    const button = document.createElement("button");
    button.title = camera.name;
    button.style.borderColor = `rgb(${camera.colour.join(",")})`;
    const picture = document.createElement("img");
    picture.src = camera.image;
    picture.alt = camera.name;
    button.append(picture);
    button.addEventListener("click", () => stand(index));
    at("strip").append(button);
    return button;
  });

  // A click, not a drag, on a camera's image
  let pressed = null;
  at("canvas").addEventListener("pointerdown", (event) => { pressed = [event.clientX, event.clientY]; });
  at("canvas").addEventListener("pointerup", (event) => {
    if (!pressed || Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > 4) return;
    const box = at("canvas").getBoundingClientRect();
    const place = new THREE.Vector2(
      2 * (event.clientX - box.left) / box.width - 1, 1 - 2 * (event.clientY - box.top) / box.height);
    const ray = new THREE.Raycaster();
    ray.setFromCamera(place, eye);
    const [hit] = ray.intersectObjects(cameras.filter((camera) => camera.body.visible).map((camera) => camera.plate));
    if (hit) stand(hit.object.userData.index);
  });

  const step = (by) => stand((chosen + by + cameras.length) % cameras.length);
  at("previous").addEventListener("click", () => step(-1));
  at("next").addEventListener("click", () => step(1));
  at("reset").addEventListener("click", whole);
  for (const id of ["hidden-share", "size", "camera-size", "cameras", "pictures"]) at(id).addEventListener("input", refresh);
  controls.addEventListener("change", show);
  new ResizeObserver(() => {
    const box = at("stage").getBoundingClientRect();
    renderer.setSize(box.width, box.height, false);
    eye.aspect = box.width / Math.max(1, box.height);
    fit();
    draw();
  }).observe(at("stage"));

  whole();
  function follow() { // a link to a camera: view.html#camera=NAME
    const asked = new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B")).get("camera");
    const found = cameras.findIndex((camera) => camera.name === asked);
    if (found >= 0) stand(found);
  }
  addEventListener("hashchange", follow);
  follow();
})();
