package drift

// Draw makes a monitor calibrate by fewer draws than are needed, before it runs: tests of what it learns have no time for more.
func (m *Monitor) Draw(draws int) { m.draws = draws }
