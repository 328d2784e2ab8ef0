//go:build wasip1

package isopod

import _ "unsafe" // for linkname

// Every instance of an image would draw the same from math/rand: the runtime seeds its generator
// once, before the image is taken. So it is seeded again, as the runtime does it; the linker has to
// allow that (-ldflags=-checklinkname=0).

//go:linkname globalRand runtime.globalRand
var globalRand struct {
	lock  uint64
	seed  [32]byte
	state struct {
		words   [36]uint64
		i, n, c uint32
	}
	init bool
}

//go:linkname m0 runtime.m0
var m0 [64]byte // the only thread; what it is made of is the runtime's

//go:linkname randinit runtime.randinit
func randinit()

//go:linkname mrandinit runtime.mrandinit
func mrandinit(m *[64]byte)

func reseed() {
	globalRand.init = false // otherwise it would refuse to be seeded twice
	randinit()
	mrandinit(&m0)
}
