# The images, for both architectures unless told otherwise. `make images` starts it with the bases of images.env:
#
#   make images                                  all for this machine, as dicomnode/NAME:VERSION
#   make images REGISTRY=registry.local:5000/ BAKE="--push node model-server trainer"
#   make images BAKE="--load --set *.platform=linux/arm64 node"
#
# A mirror: PIP_CONF=FILE and APT_SOURCES=FILE are handed over as secrets (docs/operations/images.md).

variable "REGISTRY" { default = "" }   # with its slash
variable "VERSION" { default = "0.1.0" }
variable "REVISION" { default = "unknown" }
variable "PYTHON_IMAGE" { default = "" }      # from images.env
variable "TF_SERVING_IMAGE" { default = "" }  # from images.env or the environment
variable "L4T_IMAGE" { default = "" }         # from images.env or the environment
variable "WEIGHTS" { default = "" }    # a folder with .h5 files instead of a download
variable "PIP_CONF" { default = "" }
variable "APT_SOURCES" { default = "" }

# Not in here: trainer-l4t and model-server-tf-serving, whose bases have no default.
group "default" {
  targets = ["node", "model-server", "trainer", "jupyter", "gpu-check", "client"]
}

target "_common" {
  context   = "."
  platforms = ["linux/amd64", "linux/arm64"]
  args = {
    # null: the default of the Dockerfile
    PYTHON_IMAGE = PYTHON_IMAGE == "" ? null : PYTHON_IMAGE
    VERSION      = VERSION
    REVISION     = REVISION
  }
  secret = concat(
    PIP_CONF == "" ? [] : ["type=file,id=pip_conf,src=${PIP_CONF}"],
    APT_SOURCES == "" ? [] : ["type=file,id=apt_sources,src=${APT_SOURCES}"],
  )
}

target "node" {
  inherits   = ["_common"]
  dockerfile = "docker/node.Dockerfile"
  tags       = ["${REGISTRY}dicomnode/node:${VERSION}"]
}

target "model-server" {
  inherits   = ["_common"]
  dockerfile = "docker/model-server.Dockerfile"
  tags       = ["${REGISTRY}dicomnode/model-server:${VERSION}"]
}

target "model-server-tf-serving" {
  inherits   = ["_common"]
  dockerfile = "docker/model-server-tf-serving.Dockerfile"
  platforms  = ["linux/amd64"]
  args       = { TF_SERVING_IMAGE = TF_SERVING_IMAGE }
  tags       = ["${REGISTRY}dicomnode/model-server-tf-serving:${VERSION}"]
}

target "trainer" {
  inherits   = ["_common"]
  dockerfile = "docker/trainer.Dockerfile"
  contexts   = WEIGHTS == "" ? {} : { weights-files = WEIGHTS }
  tags       = ["${REGISTRY}dicomnode/trainer:${VERSION}"]
}

target "trainer-l4t" {
  inherits   = ["trainer"]
  dockerfile = "docker/trainer-l4t.Dockerfile"
  platforms  = ["linux/arm64"]
  args       = { L4T_IMAGE = L4T_IMAGE }
  tags       = ["${REGISTRY}dicomnode/trainer-l4t:${VERSION}"]
}

target "jupyter" {
  inherits   = ["_common"]
  dockerfile = "docker/jupyter.Dockerfile"
  args       = { TRAINER_IMAGE = "trainer" }
  contexts   = { trainer = "target:trainer" }
  tags       = ["${REGISTRY}dicomnode/jupyter:${VERSION}"]
}

target "gpu-check" {
  inherits   = ["_common"]
  dockerfile = "docker/gpu-check.Dockerfile"
  tags       = ["${REGISTRY}dicomnode/gpu-check:${VERSION}"]
}

target "client" {
  inherits   = ["_common"]
  dockerfile = "docker/client.Dockerfile"
  tags       = ["${REGISTRY}dicomnode/client:${VERSION}"]
}
