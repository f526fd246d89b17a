package catalog

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/quickims/quickims/internal/ims"
)

// pairs makes a request of a project.
func pairs(kind ims.JobType, project string, images []string, members ...string) ims.MemberJob {
	job := ims.MemberJob{ID: ims.NewJobID(), ProjectID: project, Type: kind}
	for _, image := range images {
		for _, m := range members {
			job.Pairs = append(job.Pairs, ims.MemberPair{JobID: ims.NewJobID(), ImageID: image, ProjectID: m})
		}
	}
	return job
}

// memberships are an image's members with their answers.
func (c fixture) memberships(id string) (out []string) {
	c.t.Helper()
	list, err := c.Members(c.t.Context(), mine, id)
	must(c.t, err)
	for _, m := range list {
		out = append(out, m.ProjectID[:1]+" "+string(m.Status))
	}
	slices.Sort(out)
	return out
}

func TestChangeMembers(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		one, _ := c.active(mine)
		two, _ := c.active(mine)
		both := []string{two.ID, one.ID}
		want := func(step string, want ...string) {
			t.Helper()
			for _, id := range both {
				if got := c.memberships(id); !slices.Equal(got, want) || c.image(mine, id).Members != len(want) {
					t.Errorf("%s: image %s has %v and %d members, want %v", step, id, got, c.image(mine, id).Members, want)
				}
			}
		}
		add := pairs(ims.JobAddMembers, mine, both, other, third)
		must(t, c.ChangeMembers(t.Context(), add, ""))
		want("shared", "b pending", "c pending")
		must(t, c.ChangeMembers(t.Context(), pairs(ims.JobUpdateMembers, other, both, other), ims.MemberAccepted))
		want("accepted", "b accepted", "c pending")
		must(t, c.ChangeMembers(t.Context(), pairs(ims.JobAddMembers, mine, both, other), ""))
		want("shared again", "b accepted", "c pending")
		c.attach(other, one.ID, time.Hour)
		must(t, c.ChangeMembers(t.Context(), pairs(ims.JobUpdateMembers, other, both, other), ims.MemberRejected))
		want("rejected", "b rejected", "c pending")
		if left := c.attachments(other); len(left) != 0 {
			t.Errorf("a member that rejected is left with %v", left)
		}
		must(t, c.ChangeMembers(t.Context(), pairs(ims.JobDeleteMembers, mine, both, third, mine), ""))
		want("removed", "b rejected")

		job, err := c.MemberJob(t.Context(), mine, add.ID)
		must(t, err)
		add.EndedAt = c.now()
		if fmt.Sprint(job) != fmt.Sprint(add) {
			t.Errorf("the job is %v, want %v", job, add)
		}
		part, err := c.MemberJob(t.Context(), mine, add.Pairs[2].JobID)
		must(t, err)
		if len(part.Pairs) != 1 || part.Pairs[0] != add.Pairs[2] || part.Type != add.Type {
			t.Errorf("a part of it is %v", part)
		}
		for _, id := range []string{ims.NewJobID(), "", "\x00"} {
			_, err = c.MemberJob(t.Context(), mine, id)
			wantError(t, err, ErrNotFound)
		}
		_, err = c.MemberJob(t.Context(), other, add.ID)
		wantError(t, err, ErrNotFound)
	})
}

// TestChangeMembersAllOrNothing: one pair that does not go leaves all as they were, and no
// job.
func TestChangeMembersAllOrNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		good, _ := c.active(mine)
		queued, _ := c.accept(mine)
		theirs := c.share(ims.MemberAccepted) // of mine with other
		strange, _ := c.active(third)
		full, _ := c.active(mine)
		var crowd []string
		for i := range ims.MaxMembers {
			crowd = append(crowd, fmt.Sprintf("p%d", i))
		}
		must(t, c.ChangeMembers(t.Context(), pairs(ims.JobAddMembers, mine, []string{full.ID}, crowd...), ""))
		for name, tc := range map[string]struct {
			job  ims.MemberJob
			code ims.Code
		}{
			"queued":        {pairs(ims.JobAddMembers, mine, []string{good.ID, queued.ID}, other), ims.CodeImageNotActive},
			"oneself":       {pairs(ims.JobAddMembers, mine, []string{good.ID}, other, mine), ims.CodeShareWithSelf},
			"unknown":       {pairs(ims.JobAddMembers, mine, []string{good.ID, uuid.NewString()}, other), ims.CodeImageUnknown},
			"no id":         {pairs(ims.JobAddMembers, mine, []string{good.ID, "\x00"}, other), ims.CodeImageUnknown},
			"another's":     {pairs(ims.JobAddMembers, mine, []string{good.ID, strange.ID}, other), ims.CodeImageUnknown},
			"a member":      {pairs(ims.JobDeleteMembers, other, []string{theirs.ID}, other), ims.CodeOwnerOnly},
			"too many":      {pairs(ims.JobAddMembers, mine, []string{good.ID, full.ID}, "one"), ims.CodeMemberQuota},
			"answer own":    {pairs(ims.JobUpdateMembers, mine, []string{good.ID}, mine), ims.CodeNotAllowed},
			"answer none":   {pairs(ims.JobUpdateMembers, other, []string{theirs.ID, good.ID}, other), ims.CodeImageUnknown},
			"answer absent": {pairs(ims.JobUpdateMembers, other, []string{theirs.ID, uuid.NewString()}, other), ims.CodeImageUnknown},
		} {
			err := c.ChangeMembers(t.Context(), tc.job, ims.MemberRejected)
			if ims.CodeOf(err) != tc.code {
				t.Errorf("%s: %v, want %s", name, err, tc.code)
			}
			if got := c.memberships(good.ID); len(got) != 0 {
				t.Errorf("%s: the other image has the members %v", name, got)
			}
			if got := c.memberships(theirs.ID); !slices.Equal(got, []string{"b accepted"}) {
				t.Errorf("%s: the shared image has %v", name, got)
			}
			_, err = c.MemberJob(t.Context(), tc.job.ProjectID, tc.job.ID)
			wantError(t, err, ErrNotFound)
		}
	})
}

// TestChangeMembersTogether: requests about the same images in another order end, and the
// numbers are right.
func TestChangeMembersTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		var images []string
		for range 4 {
			img, _ := c.active(mine)
			images = append(images, img.ID)
		}
		var wait sync.WaitGroup
		for i := range 6 {
			order := slices.Clone(images)
			if i%2 > 0 {
				slices.Reverse(order)
			}
			wait.Go(func() {
				if err := c.ChangeMembers(t.Context(), pairs(ims.JobAddMembers, mine, order, fmt.Sprintf("p%d", i), "all"), ""); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		for _, id := range images {
			if n := c.image(mine, id).Members; n != 7 {
				t.Errorf("image %s has %d members, want 7", id, n)
			}
		}
	})
}

// TestMemberJobsAreBounded: a project has the newest, none lasts longer than 30 days, and
// the last request is there whole.
func TestMemberJobsAreBounded(t *testing.T) {
	onBoth(t, func(t *testing.T, c fixture) {
		img, _ := c.active(mine)
		rows := func() int {
			n, err := count(t.Context(), c.db, "SELECT COUNT(*) FROM member_jobs")
			must(t, err)
			return n
		}
		var many []string
		for i := range ims.MaxMembers {
			many = append(many, fmt.Sprintf("p%d", i))
		}
		first := pairs(ims.JobDeleteMembers, mine, []string{img.ID}, many...)
		must(t, c.ChangeMembers(t.Context(), first, ""))
		for range 4 {
			c.clock.advance(time.Second)
			must(t, c.ChangeMembers(t.Context(), pairs(ims.JobDeleteMembers, mine, []string{img.ID}, many...), ""))
		}
		if n := rows(); n < keepMost || n > keepMost+ims.MaxMembers+1 {
			t.Errorf("%d rows are kept, want about %d", n, keepMost)
		}
		_, err := c.MemberJob(t.Context(), mine, first.ID)
		wantError(t, err, ErrNotFound)
		c.clock.advance(keepEnded)
		last := pairs(ims.JobDeleteMembers, mine, []string{img.ID}, "p")
		must(t, c.ChangeMembers(t.Context(), last, ""))
		must(t, c.Purge(t.Context(), plenty))
		if n := rows(); n != 2 {
			t.Errorf("%d rows are left after the purge, want those of the last request", n)
		}
	})
}
