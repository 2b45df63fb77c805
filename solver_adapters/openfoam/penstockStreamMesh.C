/*---------------------------------------------------------------------------*\
License
    Apache-2.0; see LICENSE. Links OpenFOAM (GPL-3.0-or-later) when it is built.
\*---------------------------------------------------------------------------*/

#include "penstockStream.H"
#include "fvMesh.H"
#include "globalIndex.H"
#include "labelIOList.H"

#include <limits>
#include <vector>

// * * * * * * * * * * * * * Private Member Functions  * * * * * * * * * * * //

Foam::string Foam::functionObjects::penstockStream::announce()
{
    const globalIndex cells(mesh_.nCells());
    nCells_ = cells.size();
    firstCell_ = cells.localStart();

    const uint64_t shape = uint64_t(nCells_);
    std::vector<penstock_field> announced;

    for (const word& name : fields_)
    {
        const direction nComponents = componentsOf(name);

        if (!nComponents)
        {
            OStringStream names;
            names << flatOutput(available());

            return
                "field " + name + " does not exist, or is not a field of cell "
                "values; this solver has " + names.str()
              + ": correct 'fields' in the entry " + this->name()
              + " of controlDict";
        }

        announced.push_back
        ({
            name.c_str(), scalarDtype, uint32_t(nComponents), 1, &shape, 0
        });
    }

    announced.push_back
    ({
        "cell_centres", PENSTOCK_FLOAT64, 3, 1, &shape, 1
    });
    announced.push_back
    ({
        "cell_volumes", PENSTOCK_FLOAT64, 1, 1, &shape, 1
    });

    const string problem
    (
        errorOf(penstock_announce(stream_, announced.data(), announced.size()))
    );

    return
    (
        problem.empty() && Pstream::parRun()
      ? sendAddressing(label(announced.size()))
      : problem
    );
}


Foam::string Foam::functionObjects::penstockStream::sendAddressing
(
    const label nFields
)
{
    const labelIOList addressing
    (
        IOobject
        (
            "cellProcAddressing",
            mesh_.facesInstance(),
            polyMesh::meshSubDir,
            mesh_,
            IOobject::READ_IF_PRESENT,
            IOobject::NO_WRITE,
            false
        )
    );

    // A mesh that was made in parallel has no order but that of the processors
    const bool known = addressing.size() == mesh_.nCells();
    if (!returnReduce(known, andOp<bool>()))
    {
        Info<< type() << " " << name() << ": no cellProcAddressing of this mesh"
            << " (decomposePar writes it); cells are sent processor by"
            << " processor" << endl;
        return string();
    }

    const std::vector<int64_t> cells(addressing.cbegin(), addressing.cend());
    string problem;

    for (label fieldi = 0; fieldi < nFields && problem.empty(); ++fieldi)
    {
        problem = errorOf
        (
            penstock_indices
            (
                stream_, size_t(fieldi), cells.data(), uint64_t(cells.size())
            )
        );
    }
    firstCell_ = 0; // from here on, offsets count within this list

    return problem;
}


Foam::string Foam::functionObjects::penstockStream::sendMesh()
{
    const size_t centres = size_t(fields_.size());
    const size_t volumes = centres + 1;
    std::vector<double> values;
    string problem;

    if (penstock_wanted(stream_, centres))
    {
        const vectorField& c = mesh_.cellCentres();

        values.reserve(3*size_t(c.size()));
        for (const vector& centre : c)
        {
            values.insert(values.end(), centre.cbegin(), centre.cend());
        }

        problem = sendStatic(centres, values, 3);
    }

    if (problem.empty() && penstock_wanted(stream_, volumes))
    {
        const scalarField& v = mesh_.cellVolumes();

        values.assign(v.cbegin(), v.cend());

        problem = sendStatic(volumes, values, 1);
    }

    return problem;
}


Foam::string Foam::functionObjects::penstockStream::sendStatic
(
    const size_t fieldi,
    const std::vector<double>& values,
    const uint64_t nComponents
)
{
    const double noTime = std::numeric_limits<double>::quiet_NaN();

    return errorOf
    (
        penstock_send
        (
            stream_, fieldi, PENSTOCK_STATIC_STEP, noTime, PENSTOCK_FLOAT64,
            values.data(), nComponents*uint64_t(firstCell_), values.size()
        )
    );
}


// ************************************************************************* //
