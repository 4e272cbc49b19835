export {
  BufferAttribute, BufferGeometry, ColorManagement, DoubleSide, Group, LinearSRGBColorSpace, LineBasicMaterial,
  LineSegments, Matrix4, Mesh, MeshBasicMaterial, PerspectiveCamera, Points, PointsMaterial, Quaternion, Raycaster,
  Scene, Texture, Vector2, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
