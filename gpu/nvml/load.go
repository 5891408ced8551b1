package nvml

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"time"

	"berth/gpu"
)

// SetHeld says how to learn which devices have work, for their readings. It may
// be called at any time.
func (s *Simulated) SetHeld(held func(uuid string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = held
}

// Readings gives what devices would measure that work hard while they are held
// and idle else: a function of UUID, time and held, and of nothing before.
func (s *Simulated) Readings(ctx context.Context) ([]gpu.Reading, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	held := s.held
	s.mu.Unlock()
	now := s.now()
	readings := make([]gpu.Reading, len(s.inventory.Devices))
	for i, d := range s.inventory.Devices {
		readings[i] = gpu.Reading{UUID: d.UUID, At: now, Values: load(s.model, d.UUID, now, held(d.UUID))}
	}
	return readings, nil
}

// A simulated load: what a device does when it is idle and when it works.
const (
	reservedMiB   = 450  // of the memory that the driver keeps
	idlePower     = 0.15 // of the limit
	idleClock     = 0.15 // of the highest
	idleCelsius   = 31.0
	workCelsius   = 68.0
	workUsage     = 0.88 // of the compute units, on average
	workMemory    = 0.7  // of the memory, on average
	waveHeight    = 0.1  // of utilization, up and down
	wavePeriod    = 97 * time.Second
	waveMemory    = 0.05
	memoryPerWork = 0.45 // bandwidth's utilization for that of the compute units
)

// load is what one device measures.
func load(model gpu.Model, uuid string, at time.Time, held bool) map[gpu.Quantity]float64 {
	phase := phaseOf(uuid)
	turn := 2 * math.Pi * math.Mod(float64(at.UnixMilli())/float64(wavePeriod.Milliseconds()), 1)
	wave := math.Sin(turn + 2*math.Pi*phase)
	work, memory := 0.0, 0.0
	if held {
		work = workUsage + waveHeight*wave
		memory = workMemory + waveMemory*math.Sin(3*turn+2*math.Pi*phase)
	}
	total := float64(model.MemoryMiB) * mib
	used := math.Round(memory * (total - reservedMiB*mib))
	return map[gpu.Quantity]float64{
		gpu.Utilization:       work,
		gpu.MemoryUtilization: memoryPerWork * work,
		gpu.MemoryTotal:       total,
		gpu.MemoryUsed:        used,
		gpu.MemoryFree:        total - reservedMiB*mib - used,
		gpu.Temperature:       math.Round(idleCelsius + 4*phase + (workCelsius-idleCelsius)*work),
		gpu.Power:             model.PowerLimit * (idlePower + (1-idlePower)*work),
		gpu.PowerLimit:        model.PowerLimit,
		gpu.SMClock:           model.SMClock * megahertz * (idleClock + (1-idleClock)*math.Min(1, 2*work)),
		gpu.MemoryClock:       model.MemClock * megahertz,
	}
}

// phaseOf is a number from 0 to 1 that is a device's own.
func phaseOf(uuid string) float64 {
	h := sha256.Sum256([]byte("phase of " + uuid))
	return float64(binary.BigEndian.Uint16(h[:])) / math.MaxUint16
}
